//! The class behind `rails_wgpu.Cancel`.

use pyo3::prelude::*;

/// A [`rails_wgpu::Cancel`].
#[pyclass(frozen, module = "rails_wgpu._native")]
#[derive(Default)]
pub struct Cancel(pub rails_wgpu::Cancel);

#[pymethods]
impl Cancel {
    #[new]
    fn new() -> Cancel {
        Cancel::default()
    }

    fn cancel(&self) {
        self.0.cancel();
    }

    #[getter]
    fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}
