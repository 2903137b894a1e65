//! The wgpu backend.
#![allow(missing_docs, reason = "placeholder")]
use crate::{Result, backend::*, model::*, tensor::Tensor};
pub struct Adapter {
    info: DeviceInfo,
}
impl Adapter {
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }
}
pub fn adapters() -> Vec<Adapter> {
    Vec::new()
}
pub struct GpuBackend {
    info: DeviceInfo,
}
impl GpuBackend {
    pub fn open(a: &Adapter) -> Result<GpuBackend> {
        Ok(GpuBackend { info: a.info.clone() })
    }
}
impl Backend for GpuBackend {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }
    fn encoder(&self, _: &Encoder<Tensor>) -> Result<Box<dyn QueryEncoder>> {
        Err(Error::argument("x", "y", "z"))
    }
    fn index(&self, _: &Tensor, _: Option<&Mol<Tensor>>, _: Dtype) -> Result<Box<dyn DeviceIndex>> {
        Err(Error::argument("x", "y", "z"))
    }
}
