//! Every kernel, for tests of `shaders/`.

use super::device::{KernelSpec, ParamsLayout};
use super::{kernels, scan, select};

/// Every kernel as the host compiles it, with the layout of its uniform parameters.
#[doc(hidden)]
pub fn kernel_specs() -> Vec<(KernelSpec, ParamsLayout)> {
    [kernels::kernel_specs(), scan::kernel_specs(), select::kernel_specs()].concat()
}
