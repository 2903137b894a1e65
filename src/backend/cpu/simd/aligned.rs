//! Floats that begin at a cache line.

use std::ops::{Deref, DerefMut};

/// Floats of a cache line.
const LINE: usize = 16;

/// One cache line, and the widest SIMD register that there is.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

/// A vector of floats whose first one begins a cache line. A register that is loaded from the middle of two lines takes two
/// loads, and the kernels that read tiles from the first-level cache have none to spare.
#[derive(Default)]
pub struct AlignedFloats {
    lines: Vec<Line>,
    len: usize,
}

impl AlignedFloats {
    /// `len` zeros.
    pub fn zeros(len: usize) -> AlignedFloats {
        let mut floats = AlignedFloats::default();
        floats.resize(len);
        floats
    }

    /// Makes room for `len` floats. What they are is not said: some are what they were, others are zeros.
    pub fn resize(&mut self, len: usize) {
        self.lines.resize(len.div_ceil(LINE), Line([0.0; LINE]));
        self.len = len;
    }
}

impl Deref for AlignedFloats {
    type Target = [f32];

    #[inline]
    fn deref(&self) -> &[f32] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl DerefMut for AlignedFloats {
    #[inline]
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_begin_at_a_line_and_are_as_many_as_asked_for() {
        let mut floats = AlignedFloats::zeros(5);
        assert_eq!(&floats[..], [0.0; 5]);
        floats[4] = 7.0;
        for len in [1000, 17, 16, 0, 33] {
            floats.resize(len);
            assert_eq!((floats.len(), floats.as_ptr() as usize % 64), (len, 0));
        }
    }
}
