//! The compiled half of the Python package `rails_wgpu`. It takes contiguous arrays of the exact type and nothing else; the
//! half in Python (`package/`) makes such arrays of whatever people have, and holds the documentation.

mod arrays;
mod attributes;
mod cancel;
mod errors;
mod evaluate;
mod logging;
mod searcher;
mod token_pooling;
mod train;
mod train_similarity;

use std::ffi::OsString;

use pyo3::prelude::*;
use rails_wgpu::backend::select::Device;

use cancel::Cancel;
use errors::{Cancelled, DeviceError, detached};
use searcher::Searcher;
use token_pooling::TokenPooling;

/// Name, kind, interface and driver of a device.
type DeviceWords = (String, String, String, String);

/// Each device in words: name, kind, backend, driver.
#[pyfunction]
fn devices(py: Python) -> PyResult<Vec<DeviceWords>> {
    let words = |device: &Device| {
        let info = device.info();
        (info.name.clone(), info.kind.to_string(), info.backend.clone(), info.driver.clone())
    };
    detached(py, || Ok(Device::all().iter().map(words).collect()))
}

/// Runs `rails-bench` with its arguments, of which the first one is its name. Returns the exit code.
#[pyfunction]
fn run_program(py: Python, args: Vec<OsString>) -> u8 {
    py.detach(|| rails_bench::run(args, logging::log_to))
}

/// The module `rails_wgpu._native`.
#[pymodule(gil_used = false)]
fn _native(module: &Bound<PyModule>) -> PyResult<()> {
    logging::start();
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("DeviceError", module.py().get_type::<DeviceError>())?;
    module.add("Cancelled", module.py().get_type::<Cancelled>())?;
    module.add_class::<Cancel>()?;
    module.add_class::<Searcher>()?;
    module.add_class::<TokenPooling>()?;
    module.add_function(wrap_pyfunction!(logging::set_log_level, module)?)?;
    module.add_function(wrap_pyfunction!(run_program, module)?)?;
    module.add_function(wrap_pyfunction!(devices, module)?)?;
    module.add_function(wrap_pyfunction!(evaluate::evaluate_run, module)?)?;
    module.add_function(wrap_pyfunction!(evaluate::write_run, module)?)?;
    module.add_function(wrap_pyfunction!(train_similarity::train_similarity, module)?)?;
    module.add_function(wrap_pyfunction!(train::train, module)?)
}
