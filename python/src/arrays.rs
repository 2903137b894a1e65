//! Arrays on their way in and out.

use numpy::{
    Element, IntoPyArray, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use rails_wgpu::{Error, Tensor};

use crate::errors::exception;

/// A (rows, columns) array as a tensor, which is a copy: it outlives the call, and other threads may write to the array
/// once the interpreter is released.
pub fn tensor(name: &str, array: &PyReadonlyArray2<f32>) -> PyResult<Tensor> {
    let values = array.as_slice().map_err(|_| not_contiguous(name))?;
    Tensor::new(array.shape().to_vec(), values.to_vec()).map_err(exception)
}

/// A (rows, columns) array that is too large for a copy: it is read some rows at a time, each time with the interpreter.
pub struct Rows {
    name: &'static str,
    array: Py<PyArray2<f32>>,
    shape: [usize; 2],
}

impl Rows {
    pub fn new(name: &'static str, array: PyReadonlyArray2<f32>) -> PyResult<Rows> {
        array.as_slice().map_err(|_| not_contiguous(name))?;
        let shape = [array.shape()[0], array.shape()[1]];
        Ok(Rows { name, array: (*array).clone().unbind(), shape })
    }

    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Rows by their numbers, as a tensor.
    pub fn copy(&self, rows: &[usize]) -> rails_wgpu::Result<Tensor> {
        let changed = || Error::argument(self.name, "an array that stays as it is meanwhile", "another one");
        Python::attach(|py| {
            let array = self.array.bind(py).try_readonly().map_err(|_| changed())?;
            let (values, width) = (array.as_slice().map_err(|_| changed())?, self.shape[1]);
            let mut copied = Vec::with_capacity(rows.len() * width);
            for row in rows {
                copied.extend_from_slice(values.get(row * width..(row + 1) * width).ok_or_else(changed)?);
            }
            Tensor::new([rows.len(), width], copied)
        })
    }
}

/// A copy of the numbers, for the same reasons as [`tensor`].
pub fn numbers<T: Element + Copy>(name: &str, array: &PyReadonlyArray1<T>) -> PyResult<Vec<T>> {
    Ok(array.as_slice().map_err(|_| not_contiguous(name))?.to_vec())
}

/// Values as an array of this shape, which owns them: no copy.
pub fn matrix<T: Element>(py: Python, values: Vec<T>, rows: usize, columns: usize) -> PyResult<Bound<PyArray2<T>>> {
    values.into_pyarray(py).reshape([rows, columns])
}

/// Lists of numbers, one after the other, and where each begins.
pub struct Lists<T> {
    values: Vec<T>,
    offsets: Vec<usize>,
}

impl<T> Lists<T> {
    pub fn new(values: Vec<T>, offsets: Vec<u64>) -> PyResult<Lists<T>> {
        let offsets: Vec<usize> = offsets.into_iter().map(|offset| offset as usize).collect();
        if !offsets.is_sorted() || offsets.last() != Some(&values.len()) {
            return Err(PyValueError::new_err("lists: expected offsets that ascend to the number of values"));
        }
        Ok(Lists { values, offsets })
    }

    pub fn iter(&self) -> impl Iterator<Item = &[T]> {
        self.offsets.windows(2).map(|pair| &self.values[pair[0]..pair[1]])
    }
}

fn not_contiguous(name: &str) -> PyErr {
    PyValueError::new_err(format!("{name}: expected a contiguous array"))
}
