//! The function behind `rails_wgpu.train_similarity`.

use std::ops::ControlFlow;
use std::path::PathBuf;

use numpy::{PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;
use rails_wgpu::config::{MolConfig, TrainConfig};
use rails_wgpu::model_file::save_mol;
use rails_wgpu::train::{EmbeddingPairs, fresh_similarity, train_similarity as train};

use crate::arrays::{numbers, tensor};
use crate::errors::{detached, exception};

/// Trains a similarity with the hyper-parameters `mol` from fresh weights, and writes it to `path`.
#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "they are the options of a training")]
pub fn train_similarity(
    py: Python,
    queries: PyReadonlyArray2<f32>,
    items: PyReadonlyArray2<f32>,
    of_queries: PyReadonlyArray1<u32>,
    of_items: PyReadonlyArray1<u32>,
    mol: &str,
    training: &str,
    path: PathBuf,
    callback: Option<Py<PyAny>>,
) -> PyResult<()> {
    let (queries, items) = (tensor("query_embeddings", &queries)?, tensor("item_embeddings", &items)?);
    let pairs = numbers("pairs", &of_queries)?.into_iter().zip(numbers("pairs", &of_items)?);
    let pairs: Vec<(u32, u32)> = pairs.collect();
    // Before the work and not after it.
    rails_wgpu::atomic::check(&path).map_err(exception)?;
    let mol = MolConfig::from_json(mol, "mol").map_err(exception)?;
    let config = TrainConfig::default().overridden(training).map_err(exception)?;
    let mut raised = None;
    let tell = |epoch: usize, loss: f64| {
        // Ctrl-C is seen here, and what the caller's function raises.
        let told = Python::attach(|py| {
            py.check_signals()?;
            let Some(callback) = &callback else { return Ok(true) };
            let returned = callback.call1(py, (epoch, loss))?;
            let returned = returned.bind(py);
            Ok::<bool, PyErr>(returned.is_none() || returned.is_truthy()?)
        });
        match told {
            Ok(true) => ControlFlow::Continue(()),
            Ok(false) => ControlFlow::Break(()),
            Err(error) => {
                raised = Some(error);
                ControlFlow::Break(())
            }
        }
    };
    let trained = detached(py, || {
        let fresh = fresh_similarity(&mol, items.width(), config.seed)?;
        train(&fresh, EmbeddingPairs { queries: &queries, items: &items, pairs: &pairs }, &config, tell)
    })?;
    match raised {
        Some(error) => Err(error),
        None => detached(py, || save_mol(&path, &trained)),
    }
}
