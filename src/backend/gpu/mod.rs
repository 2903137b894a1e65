//! The wgpu backend: Vulkan, Metal and DX12 devices.
//!
//! [`enumerate`] lists the adapters, [`Gpu::open`] makes one ready, a [`Recorder`] collects the dispatches of one
//! submission. Kernels are the files of `shaders/`, described by a [`KernelSpec`] and compiled once per device.

mod backend;
mod buffer;
mod cache;
mod coop;
mod device;
mod encoder;
mod host;
mod index;
mod item_table;
mod kernel;
mod kernels;
mod leave;
mod lists;
mod long_select;
mod mol_side;
mod ops;
mod pack;
mod pipelines;
mod plan;
mod program;
mod recorder;
mod rescore;
mod round;
mod scan;
mod survivors;
mod tier;
mod timer;
mod top_k;
mod trusted;
mod tune;

pub use backend::GpuBackend;
pub use buffer::Buffer;
pub use device::{Adapter, Gpu, GpuOptions, enumerate};
pub use encoder::GpuEncoder;
pub use host::{check_limits, device_descriptor};
pub use index::GpuIndex;
pub use kernel::{Bind, Kernel, KernelSpec, ParamsLayout, grid_1d};
#[doc(hidden)]
pub use kernels::kernel_specs;
pub use leave::{GpuHits, GpuQueries};
pub use plan::{Chunk, ScanLimits, ScanPlan, ScanShape, TILE, shards};
pub use recorder::Recorder;
pub use tier::ScanTier;
