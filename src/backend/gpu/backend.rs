//! The wgpu backend as a [`Backend`].

use std::sync::Arc;

use super::{Adapter, Gpu, GpuEncoder, GpuIndex, ScanLimits};
use crate::Result;
use crate::backend::{Backend, DeviceIndex, DeviceInfo, Dtype, QueryEncoder};
use crate::model::{Encoder, Mol};
use crate::tensor::Tensor;

/// A GPU as a backend.
#[derive(Clone, Debug)]
pub struct GpuBackend {
    gpu: Arc<Gpu>,
}

impl GpuBackend {
    /// Opens `adapter`.
    ///
    /// # Errors
    /// If the driver refuses.
    pub fn open(adapter: &Adapter) -> Result<GpuBackend> {
        Ok(GpuBackend { gpu: Gpu::open(adapter)? })
    }

    /// Works on a device that is open already, e.g. that of a host application.
    pub fn new(gpu: Arc<Gpu>) -> GpuBackend {
        GpuBackend { gpu }
    }

    /// The device.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }
}

impl Backend for GpuBackend {
    fn info(&self) -> &DeviceInfo {
        self.gpu.info()
    }

    fn encoder(&self, encoder: &Encoder<Tensor>) -> Result<Box<dyn QueryEncoder>> {
        Ok(Box::new(GpuEncoder::new(&self.gpu, encoder)?))
    }

    fn index(&self, embeddings: &Tensor, mol: Option<&Mol<Tensor>>, dtype: Dtype) -> Result<Box<dyn DeviceIndex>> {
        Ok(Box::new(GpuIndex::new(&self.gpu, embeddings, mol, dtype, ScanLimits::default())?))
    }
}
