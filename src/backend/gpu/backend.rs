//! The wgpu backend as a [`Backend`].

use std::sync::Arc;

use super::device::{Adapter, Buffer, Gpu};
use super::index::GpuIndex;
use super::kernels::{GpuEncoder, Recorder};
use super::scan::ScanLimits;
use crate::Result;
use crate::backend::{Backend, DeviceIndex, DeviceInfo, QueryEncoder, SearchContext, Similarity};
use crate::model::{Encoder, ItemParts, Mol, TokenPooling};
use crate::ops::Ops;
use crate::tables::{ItemSide, Tables};
use crate::tensor::Tensor;
use crate::token_embeddings::TokenEmbeddings;

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

    /// Works on the device of a host application, e.g. the one that it draws with; see [`Gpu::from_device`].
    ///
    /// ```no_run
    /// use rails_wgpu::backend::gpu::{GpuBackend, device_descriptor};
    /// use rails_wgpu::wgpu;
    ///
    /// # async fn host(adapter: wgpu::Adapter) -> Result<(), Box<dyn std::error::Error>> {
    /// let (device, queue) = adapter.request_device(&device_descriptor(&adapter)).await?;
    /// let backend = GpuBackend::from_device(device.clone(), queue.clone())?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Gpu::from_device`].
    pub fn from_device(device: wgpu::Device, queue: wgpu::Queue) -> Result<GpuBackend> {
        Ok(GpuBackend::new(Gpu::from_device(device, queue)?))
    }

    /// Works on a device that is open already.
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

    fn share(&self) -> Arc<dyn Backend> {
        Arc::new(self.clone())
    }

    fn encoder(&self, encoder: &Encoder<Tensor>) -> Result<Box<dyn QueryEncoder>> {
        Ok(Box::new(GpuEncoder::new(&self.gpu, encoder)?))
    }

    fn item_side(&self, mol: &Mol<Tensor>, items: &Tensor) -> Result<ItemSide> {
        let mut recorder = Recorder::new(&self.gpu);
        let weights = mol.map(&mut |tensor| recorder.floats(tensor));
        let rows = recorder.upload(items.data());
        let parts = weights.item_side(&mut recorder, &rows, items.rows());
        let optional = [&parts.projected, &parts.gate, &parts.principal];
        let present: Vec<&Buffer> = std::iter::once(&parts.components).chain(optional.into_iter().flatten()).collect();
        let mut read = recorder.read_all(&present)?.into_iter().map(|bytes| bytemuck::pod_collect_to_vec(&bytes));
        let components = read.next().unwrap_or_default();
        // In the order of `optional`.
        let mut next = |part: &Option<Buffer>| part.as_ref().and_then(|_| read.next());
        let parts = ItemParts {
            components,
            projected: next(&parts.projected),
            gate: next(&parts.gate),
            principal: next(&parts.principal),
        };
        Ok(ItemSide::new(mol, parts))
    }

    fn pool(&self, pooling: &TokenPooling, texts: &TokenEmbeddings) -> Result<Tensor> {
        pooling.pool(&mut Recorder::new(&self.gpu), texts)
    }

    fn retrieves(&self) -> bool {
        true
    }

    fn load(
        &self,
        context: &SearchContext,
        tables: Arc<Tables>,
        similarity: Option<&Similarity>,
    ) -> Result<Box<dyn DeviceIndex>> {
        Ok(Box::new(GpuIndex::new(context, &self.gpu, tables, similarity, ScanLimits::default())?))
    }
}
