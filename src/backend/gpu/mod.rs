//! The wgpu backend: Vulkan, Metal and DX12 devices.
//!
//! [`enumerate`] lists the adapters, [`Gpu::open`] makes one ready, a [`Recorder`] collects the dispatches of one
//! submission. Kernels are the files of `shaders/`, described by a [`KernelSpec`] and compiled once per device.

mod buffer;
mod device;
mod index;
mod kernel;
mod pack;
mod plan;
mod recorder;
mod scan;
mod top_k;

pub use buffer::Buffer;
pub use device::{Adapter, Gpu, enumerate};
pub use index::GpuIndex;
pub use kernel::{Bind, Kernel, KernelSpec, grid_1d};
pub use plan::{Chunk, ScanLimits, ScanPlan, ScanShape, TILE, shards};
pub use recorder::Recorder;
