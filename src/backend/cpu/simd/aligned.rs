//! Floats aligned to cache lines.

use std::ops::{Deref, DerefMut};

use super::prefetch::CACHE_LINE;

/// Floats of a cache line.
const FLOATS: usize = CACHE_LINE / size_of::<f32>();

/// One cache line, which is also the widest SIMD register.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([f32; FLOATS]);

/// A vector of floats that begins at a cache line. Loading a register across two lines takes two loads, and the kernels that read tiles
/// from the first-level cache are limited by loads.
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

    /// Makes room for `len` floats. Their values are unspecified: a mix of earlier values and zeros.
    pub fn resize(&mut self, len: usize) {
        self.lines.resize(len.div_ceil(FLOATS), Line([0.0; FLOATS]));
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
