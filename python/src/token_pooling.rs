//! The class behind `rails_wgpu.TokenPooling`.

use std::path::PathBuf;

use numpy::{IntoPyArray, PyArray3, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;
use rails_wgpu::backend::select;
use rails_wgpu::{Tensor, TokenEmbeddings};

use crate::arrays::{numbers, tensor};
use crate::errors::{detached, exception};

/// A [`rails_wgpu::TokenPooling`].
#[pyclass(frozen, module = "rails_wgpu._native")]
pub struct TokenPooling(rails_wgpu::TokenPooling);

#[pymethods]
impl TokenPooling {
    #[staticmethod]
    fn first_tokens(n_components: usize) -> PyResult<TokenPooling> {
        rails_wgpu::TokenPooling::first_tokens(n_components).map(TokenPooling).map_err(exception)
    }

    #[staticmethod]
    fn mixture(weights: PyReadonlyArray2<f32>, softmax: bool) -> PyResult<TokenPooling> {
        rails_wgpu::TokenPooling::mixture(tensor("weights", &weights)?, softmax).map(TokenPooling).map_err(exception)
    }

    #[staticmethod]
    fn open(path: PathBuf) -> PyResult<TokenPooling> {
        rails_wgpu::TokenPooling::open(path).map(TokenPooling).map_err(exception)
    }

    fn with_projection(
        &self,
        weight: PyReadonlyArray2<f32>,
        bias: Option<PyReadonlyArray1<f32>>,
    ) -> PyResult<TokenPooling> {
        let bias = bias.map(|bias| numbers("projection", &bias)).transpose()?;
        let bias = bias.map(|bias| Tensor::new([bias.len()], bias)).transpose().map_err(exception)?;
        let pooling = self.0.clone().with_projection(&tensor("projection", &weight)?, bias);
        pooling.map(TokenPooling).map_err(exception)
    }

    fn with_l2_norm(&self, eps: f32) -> PyResult<TokenPooling> {
        self.0.clone().with_l2_norm(eps).map(TokenPooling).map_err(exception)
    }

    fn save(&self, path: PathBuf) -> PyResult<()> {
        self.0.save(path).map_err(exception)
    }

    #[getter]
    fn n_components(&self) -> usize {
        self.0.n_components()
    }

    /// Text i has `lengths[i]` rows of `states` (T, D), one text after the other.
    fn pool<'py>(
        &self,
        py: Python<'py>,
        states: PyReadonlyArray2<f32>,
        lengths: PyReadonlyArray1<u64>,
        device: &str,
    ) -> PyResult<Bound<'py, PyArray3<f32>>> {
        let states = tensor("texts", &states)?;
        let lengths: Vec<usize> = numbers("texts", &lengths)?.into_iter().map(|length| length as usize).collect();
        let pooled = detached(py, || select::open(device)?.pool(&self.0, &TokenEmbeddings::new(states, &lengths)?))?;
        let [n, p, width] = [0, 1, 2].map(|axis| pooled.shape()[axis]);
        pooled.data().to_vec().into_pyarray(py).reshape([n, p, width])
    }
}
