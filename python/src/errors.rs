//! Errors of the library as exceptions, in the library's own words.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::create_exception;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::{PyErr, PyResult, Python};
use rails_wgpu::Error;

create_exception!(
    rails_wgpu,
    DeviceError,
    PyRuntimeError,
    "There is no such device, it failed, or the work does not fit it."
);

create_exception!(rails_wgpu, Cancelled, PyRuntimeError, "A search was ended by its `Cancel`.");

/// Does `work` without the interpreter. A panic, which is a bug, becomes a `RuntimeError`: that of PyO3 is no `Exception`.
pub fn detached<T: Send>(py: Python, work: impl FnOnce() -> rails_wgpu::Result<T> + Send) -> PyResult<T> {
    // A searcher holds its changing state behind locks that tolerate a panic.
    match py.detach(|| catch_unwind(AssertUnwindSafe(work))) {
        Ok(done) => done.map_err(exception),
        Err(panic) => {
            let words = words_of(panic.as_ref());
            Err(PyRuntimeError::new_err(format!("a bug of rails_wgpu, please report it: {words}")))
        }
    }
}

/// The exception that Python programs expect: `FileNotFoundError` and its like, `DeviceError`, `Cancelled`, or `ValueError`.
pub fn exception(error: Error) -> PyErr {
    let words = error.to_string();
    match error {
        Error::Io { source, .. } => io::Error::new(source.kind(), words).into(),
        Error::NoDevice { .. } | Error::Limit { .. } | Error::OutOfMemory { .. } | Error::Device { .. } => {
            DeviceError::new_err(words)
        }
        Error::Cancelled => Cancelled::new_err(words),
        _ => PyValueError::new_err(words),
    }
}

fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without words")
}
