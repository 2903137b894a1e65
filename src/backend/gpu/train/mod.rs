//! Training: gradients of the operations of encoders, the losses, and AdamW, as dispatches.

mod attention;
mod dot;
mod full;
mod gradient;
mod gru;
mod kernels;
mod lists;
mod mol;
mod mutual_information;
mod ops;
mod pairs;
mod product;
mod shaped_kernels;
mod training;

pub(crate) use kernels::kernel_specs;
pub use ops::{GpuInts, GpuTrainingOps};
pub(crate) use shaped_kernels::shaped_kernels;
