//! Devices: adapters, open devices and their memory, compiled kernels, and what a device remembers between runs.

mod adapter;
mod buffer;
mod cache;
mod gpu;
mod host;
mod info;
mod kernel;
mod lock;
mod matrices;
mod options;
mod pipelines;
mod pool;
mod shader_checks;
mod shaped_kernel;
mod tier;
mod timing;
mod trusted;
mod tuner;

pub use adapter::{Adapter, enumerate};
pub use buffer::Buffer;
pub(crate) use buffer::Lease;
pub use gpu::Gpu;
pub(crate) use gpu::TIMEOUT;
pub use host::{check_limits, device_descriptor};
pub use kernel::{Bind, Kernel, KernelSpec, ParamsLayout, grid_1d};
pub(crate) use kernel::{params, wgsl};
pub(crate) use matrices::Matrices;
pub use options::GpuOptions;
pub(crate) use pool::Pool;
pub use shader_checks::ShaderChecks;
pub use shaped_kernel::ShapedKernel;
pub use tier::ScanTier;
pub(crate) use tier::Tier;
pub use timing::ScanTiming;
