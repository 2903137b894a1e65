//! Arrays on their way in and out.

use numpy::{
    Element, IntoPyArray, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use rails_wgpu::tensor::Tensor;

use crate::errors::exception;

/// A (rows, columns) array as a tensor, which is a copy: it outlives the call, and other threads may write to the array
/// once the interpreter is released.
pub fn tensor(name: &str, array: &PyReadonlyArray2<f32>) -> PyResult<Tensor> {
    let values = array.as_slice().map_err(|_| not_contiguous(name))?;
    Tensor::new(array.shape().to_vec(), values.to_vec()).map_err(exception)
}

/// A copy of the numbers, for the same reasons.
pub fn numbers<T: Element + Copy>(name: &str, array: &PyReadonlyArray1<T>) -> PyResult<Vec<T>> {
    Ok(array.as_slice().map_err(|_| not_contiguous(name))?.to_vec())
}

/// Values as an array of this shape, which owns them: no copy.
pub fn matrix<T: Element>(py: Python, values: Vec<T>, rows: usize, columns: usize) -> PyResult<Bound<PyArray2<T>>> {
    values.into_pyarray(py).reshape([rows, columns])
}

fn not_contiguous(name: &str) -> PyErr {
    PyValueError::new_err(format!("{name}: expected a contiguous array"))
}
