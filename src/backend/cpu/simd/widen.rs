//! Conversion of f16 numbers to f32.

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::Portable;

/// The conversion, by one instruction set.
pub trait Widen {
    /// Converts as many f16 numbers as there are floats. They have to be finite, as those of tables are.
    fn widen(&self, numbers: &[f16], floats: &mut [f32]);
}

impl Widen for Portable {
    #[inline(always)]
    fn widen(&self, numbers: &[f16], floats: &mut [f32]) {
        numbers.convert_to_f32_slice(floats);
    }
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
pub use x86::{RESCALE, widen_pairs_unscaled, widen_unscaled};

/// Sign, exponent and fraction of an f16, moved to where an f32 has them, are its value times 2^-112, since the two formats differ in
/// the bias of the exponent; this holds for subnormal numbers, too. Whoever multiplies such a number puts the factor 2^112 elsewhere.
/// (F16C has an instruction for the whole conversion, but the `half` crate makes a function call of every eight numbers.)
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

    /// 2^112: what unscaled numbers have to be multiplied by.
    pub const RESCALE: f32 = f32::from_bits((127 + 112) << 23);

    /// The bits of an f32 that an f16 fills: its sign, the low four bits of the exponent and the high ten of the fraction. What a
    /// shift with sign leaves in the other bits is cleared.
    const F16_BITS: i32 = 0x8fff_e000_u32 as i32;

    /// Eight finite numbers times 2^-112.
    #[inline(always)]
    pub fn widen_unscaled(simd: V3, numbers: [f16; 8]) -> __m256i {
        let V3 { avx, avx2, .. } = simd;
        let bits = avx2._mm256_slli_epi32::<13>(avx2._mm256_cvtepi16_epi32(cast(numbers)));
        avx2._mm256_and_si256(bits, avx._mm256_set1_epi32(F16_BITS))
    }

    /// The first and the second numbers of eight pairs, all finite, times 2^-112. `madd` with 2^13 in the lower number of each pair is a
    /// shift of the first number that drops the second, and runs on another unit than shifts do.
    #[inline(always)]
    pub fn widen_pairs_unscaled(simd: V3, pairs: __m256i) -> [__m256i; 2] {
        let V3 { avx, avx2, .. } = simd;
        let first = avx2._mm256_madd_epi16(pairs, avx._mm256_set1_epi32(1 << 13));
        let second = avx2._mm256_srai_epi32::<3>(pairs);
        let places = avx._mm256_set1_epi32(F16_BITS);
        [avx2._mm256_and_si256(first, places), avx2._mm256_and_si256(second, places)]
    }

    impl Widen for V3 {
        #[inline(always)]
        fn widen(&self, numbers: &[f16], floats: &mut [f32]) {
            let ((numbers, rest), (floats, rest_of_floats)) = (numbers.as_chunks::<8>(), floats.as_chunks_mut::<8>());
            for (numbers, floats) in numbers.iter().zip(floats) {
                let unscaled = cast(widen_unscaled(*self, *numbers));
                *floats = cast(self.avx._mm256_mul_ps(unscaled, self.avx._mm256_set1_ps(RESCALE)));
            }
            for (number, float) in rest.iter().zip(rest_of_floats) {
                *float = number.to_f32();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finite_number_keeps_its_value() {
        let numbers: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).filter(|number| number.is_finite()).collect();
        assert_eq!(numbers.len(), 2 * 31 * 1024);
        let check = |kernel: &dyn Fn(&[f16], &mut [f32])| {
            // Lengths that are multiples of eight, and others.
            for length in [3, 8, 1001] {
                for numbers in numbers.chunks(length) {
                    let mut floats = vec![f32::NAN; numbers.len()];
                    kernel(numbers, &mut floats);
                    let bits: Vec<u32> = floats.iter().map(|float| float.to_bits()).collect();
                    let expected: Vec<u32> = numbers.iter().map(|number| number.to_f32().to_bits()).collect();
                    assert_eq!(bits, expected);
                }
            }
        };
        check(&|numbers, floats| Portable.widen(numbers, floats));
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        if let Some(simd) = crate::backend::cpu::simd::avx2() {
            check(&|numbers, floats| simd.widen(numbers, floats));
        }
    }
}
