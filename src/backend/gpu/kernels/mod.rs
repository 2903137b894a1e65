//! Kernels at work: commands on their way to a device, and encoders as dispatches of array operations.

mod encoder;
mod op_kernels;
mod ops;
mod recorder;
mod shaped_kernels;
mod timer;

pub use encoder::GpuEncoder;
pub(crate) use op_kernels::kernel_specs;
pub(crate) use ops::{ELEMENTS, GRU_SEQUENCES, activation_code, bucket_words, by_length};
pub use recorder::Recorder;
pub(crate) use recorder::Submission;
pub(crate) use shaped_kernels::shaped_kernels;
