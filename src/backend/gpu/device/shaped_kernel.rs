//! Kernels at shapes that have names, and the work that their formulas ask for: what compilers make of them is checked.

use super::kernel::KernelSpec;

/// A kernel as the host compiles it for one shape.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct ShapedKernel {
    /// The kernel.
    pub spec: KernelSpec,
    /// What it is used for, in words.
    pub shape: String,
    /// Number format of the item table, or f32; empty where it does not matter.
    pub dtype: &'static str,
    /// Products that are added to something, as the formula of the kernel has them, of one thread; products of four pairs of 8-bit
    /// integers count as one. 0 where a kernel moves or compares numbers rather than multiplying them.
    pub multiply_adds: f64,
    /// How often each loop turns whose end is a parameter of the dispatch, in the order of the text.
    pub turns: Vec<u64>,
}

impl ShapedKernel {
    /// A kernel that multiplies next to nothing.
    pub(crate) fn plain(spec: KernelSpec) -> ShapedKernel {
        let constants: Vec<String> = spec.constants.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let shape = if constants.is_empty() { "any".to_string() } else { constants.join(" ") };
        ShapedKernel { spec, shape, dtype: "", multiply_adds: 0.0, turns: Vec::new() }
    }
}
