//! The wgpu backend: Vulkan, Metal and DX12 devices.
//!
//! [`enumerate`] lists the adapters, [`Gpu::open`] makes one ready, a [`Recorder`] collects the dispatches of one
//! submission. Kernels are the files of `shaders/`, described by a [`KernelSpec`] and compiled once per device.

mod buffer;
mod device;
mod encoder;
mod kernel;
mod kernels;
mod ops;
mod recorder;

pub use buffer::Buffer;
pub use device::{Adapter, Gpu, enumerate};
pub use encoder::GpuEncoder;
pub use kernel::{Bind, Kernel, KernelSpec, ParamsLayout, grid_1d};
#[doc(hidden)]
pub use kernels::kernel_specs;
pub use recorder::Recorder;
