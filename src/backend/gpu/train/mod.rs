//! Training: gradients of the operations of encoders, the loss of inner products, and AdamW, as dispatches.

mod attention;
mod gradient;
mod kernels;
mod lists;
mod ops;
mod training;

pub(crate) use kernels::{kernel_specs, shaped_kernels};
pub use ops::{GpuInts, GpuTrainingOps};
