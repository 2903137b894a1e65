//! Halves to floats.

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::transpose::Portable;

/// What an instruction set does.
pub trait Widen {
    /// Converts as many halves as there are floats: finite ones, as tables hold them.
    fn widen(&self, halves: &[f16], floats: &mut [f32]);
}

impl Widen for Portable {
    #[inline(always)]
    fn widen(&self, halves: &[f16], floats: &mut [f32]) {
        halves.convert_to_f32_slice(floats);
    }
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
pub use x86::{SMALL, small, small_pairs};

/// Exponent and fraction of a half, moved to their places in an f32, stand for 2^-112 of its value, subnormal ones included.
/// (There is an instruction that converts, but the library that has it makes a call of each eight halves.)
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod x86 {
    #[cfg(target_arch = "x86")]
    use std::arch::x86::__m256i;
    #[cfg(target_arch = "x86_64")]
    use std::arch::x86_64::__m256i;

    use half::f16;
    use pulp::cast;
    use pulp::x86::V3;

    use super::Widen;

    /// What numbers in their places are too small by.
    pub const SMALL: f32 = f32::from_bits((127 + 112) << 23);

    /// The sign, and what is not one of its copies in the bits below it.
    const PLACES: i32 = 0x8fff_e000_u32 as i32;

    /// Finite halves, too small.
    #[inline(always)]
    pub fn small(simd: V3, halves: [f16; 8]) -> __m256i {
        let V3 { avx, avx2, .. } = simd;
        let bits = avx2._mm256_slli_epi32::<13>(avx2._mm256_cvtepi16_epi32(cast(halves)));
        avx2._mm256_and_si256(bits, avx._mm256_set1_epi32(PLACES))
    }

    /// The first and the second of eight pairs of finite halves, too small. A product with 2^13 is a shift for another unit of the
    /// processor, and takes only the first.
    #[inline(always)]
    pub fn small_pairs(simd: V3, pairs: __m256i) -> [__m256i; 2] {
        let V3 { avx, avx2, .. } = simd;
        let first = avx2._mm256_madd_epi16(pairs, avx._mm256_set1_epi32(1 << 13));
        let second = avx2._mm256_srai_epi32::<3>(pairs);
        let places = avx._mm256_set1_epi32(PLACES);
        [avx2._mm256_and_si256(first, places), avx2._mm256_and_si256(second, places)]
    }

    impl Widen for V3 {
        #[inline(always)]
        fn widen(&self, halves: &[f16], floats: &mut [f32]) {
            let ((halves, rest), (floats, rest_of_floats)) = (halves.as_chunks::<8>(), floats.as_chunks_mut::<8>());
            for (halves, floats) in halves.iter().zip(floats) {
                let small = cast(small(*self, *halves));
                *floats = cast(self.avx._mm256_mul_ps(small, self.avx._mm256_set1_ps(SMALL)));
            }
            for (half, float) in rest.iter().zip(rest_of_floats) {
                *float = half.to_f32();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finite_half_is_the_float_of_the_same_value() {
        let halves: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).filter(|half| half.is_finite()).collect();
        assert_eq!(halves.len(), 2 * 31 * 1024);
        let check = |kernel: &dyn Fn(&[f16], &mut [f32])| {
            // Of lengths with and without a rest.
            for length in [3, 8, 1001] {
                for halves in halves.chunks(length) {
                    let mut floats = vec![f32::NAN; halves.len()];
                    kernel(halves, &mut floats);
                    let bits: Vec<u32> = floats.iter().map(|float| float.to_bits()).collect();
                    let expected: Vec<u32> = halves.iter().map(|half| half.to_f32().to_bits()).collect();
                    assert_eq!(bits, expected);
                }
            }
        };
        check(&|halves, floats| Portable.widen(halves, floats));
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        match pulp::Arch::new() {
            pulp::Arch::V3(simd) => check(&|halves, floats| simd.widen(halves, floats)),
            pulp::Arch::V4(simd) => check(&|halves, floats| (*simd).widen(halves, floats)),
            _ => {}
        }
    }
}
