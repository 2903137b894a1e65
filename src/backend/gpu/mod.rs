//! The wgpu backend: Vulkan, Metal and DX12 devices.
//!
//! [`enumerate`] lists the adapters, [`Gpu::open`] makes one ready, a [`Recorder`] collects the dispatches of one
//! submission. Kernels are the files of `shaders/`, described by a [`KernelSpec`] and compiled once per device.
//!
//! Rooms, each of which knows those before it only: `device`, `kernels`, `train`, `select`, `scan`; then [`GpuIndex`] and
//! [`GpuBackend`].

mod backend;
mod device;
mod device_index;
mod device_output;
mod first_stage;
mod index;
mod kernel_specs;
mod kernels;
mod retrieve;
mod scan;
mod select;
mod train;

pub use backend::GpuBackend;
pub use device::{
    Adapter, Bind, Buffer, Gpu, GpuOptions, Kernel, KernelSpec, ParamsLayout, ScanTier, ScanTiming, ShaderChecks,
    ShapedKernel, check_limits, device_descriptor, enumerate, grid_1d,
};
pub use index::GpuIndex;
#[doc(hidden)]
pub use kernel_specs::{kernel_specs, shaped_kernels};
pub use kernels::{GpuEncoder, Recorder};
pub use scan::ScanLimits;
pub use train::{GpuInts, GpuTrainingOps};
