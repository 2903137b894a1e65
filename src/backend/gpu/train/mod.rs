//! Training: gradients of the operations of encoders, the losses, and AdamW, as dispatches.

mod attention;
mod dot;
mod full;
mod gradient;
mod gru;
mod kernels;
mod lists;
mod mol;
mod ops;
mod pairs;
mod training;

pub(crate) use kernels::{kernel_specs, shaped_kernels};
pub use ops::{GpuInts, GpuTrainingOps};
