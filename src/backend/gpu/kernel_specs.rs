//! Every kernel, for tests of `shaders/` and for checks of what compilers make of them.

use super::device::{KernelSpec, ParamsLayout, ShapedKernel};
use super::{kernels, scan, select, train};

/// Every kernel as the host compiles it, with the layout of its uniform parameters.
#[doc(hidden)]
pub fn kernel_specs() -> Vec<(KernelSpec, ParamsLayout)> {
    [kernels::kernel_specs(), train::kernel_specs(), scan::kernel_specs(), select::kernel_specs()].concat()
}

/// Every kernel at the shapes of published models.
#[doc(hidden)]
pub fn shaped_kernels() -> Vec<ShapedKernel> {
    let select = select::kernel_specs().into_iter().map(|(spec, _)| ShapedKernel::plain(spec));
    [scan::shaped_kernels(), kernels::shaped_kernels(), train::shaped_kernels(), select.collect()].concat()
}
