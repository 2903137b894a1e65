//! Errors of the library as exceptions, in the library's own words.

use std::io;

use pyo3::PyErr;
use pyo3::create_exception;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use rails_wgpu::Error;

create_exception!(
    rails_wgpu,
    DeviceError,
    PyRuntimeError,
    "There is no such device, it failed, or the work does not fit it."
);

/// The exception that Python programs expect: `FileNotFoundError` and its like, `DeviceError`, or `ValueError`.
pub fn exception(error: Error) -> PyErr {
    let words = error.to_string();
    match error {
        Error::Io { source, .. } => io::Error::new(source.kind(), words).into(),
        Error::NoDevice { .. } | Error::Limit { .. } | Error::OutOfMemory { .. } | Error::Device { .. } => {
            DeviceError::new_err(words)
        }
        _ => PyValueError::new_err(words),
    }
}
