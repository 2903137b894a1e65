//! The checks that wgpu adds to kernels.

use crate::error::Parameter;
use crate::names::names;

/// The checks that wgpu adds to the kernels of this crate when they are compiled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShaderChecks {
    /// Nothing outside of a buffer is read or written. That loops end is known of these kernels, and not checked: compilers
    /// unroll loops only so.
    #[default]
    Bounds,
    /// All there are, for tests: every loop counts its turns, too.
    Full,
}

names!(ShaderChecks, Parameter::ShaderChecks, {
    Bounds: "bounds",
    Full: "full",
});
