//! The number formats of tables of floats, as the prefilter multiplies them.

#[cfg(target_arch = "x86")]
use std::arch::x86::{__m256, __m256i};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256, __m256i};

use half::f16;
use pulp::cast;
use pulp::x86::V3;

use crate::backend::cpu::simd::widen::RESCALE;

/// Columns of a block, which are multiplied at a time.
pub const BLOCK: usize = 16;

/// A number format of tables.
pub trait Element: bytemuck::Pod {
    /// What numbers in registers have to be multiplied by. The query is, instead.
    const SCALE: f32;
    /// Largest relative error of a number in a register.
    const ERROR: f32;
    /// Smallest magnitude for which that holds; below it the error is at most that of this magnitude.
    const MIN_MAGNITUDE: f32;

    /// In which register a column of a block comes, and in which lane.
    fn place(column: usize) -> [usize; 2];

    /// A block in registers.
    fn registers(simd: V3, columns: &[Self; BLOCK]) -> [__m256; 2];

    /// In each lane the largest of `magnitudes`, as bits, and of the magnitudes of some columns of a block.
    fn larger(simd: V3, magnitudes: __m256i, columns: &[Self; BLOCK]) -> __m256i;

    /// The largest of all lanes.
    fn largest(magnitudes: __m256i) -> f32;
}

impl Element for f32 {
    const SCALE: f32 = 1.0;
    const ERROR: f32 = 0.0;
    const MIN_MAGNITUDE: f32 = 0.0;

    fn place(column: usize) -> [usize; 2] {
        [column / (BLOCK / 2), column % (BLOCK / 2)]
    }

    #[inline(always)]
    fn registers(_: V3, columns: &[f32; BLOCK]) -> [__m256; 2] {
        cast(*columns)
    }

    #[inline(always)]
    fn larger(simd: V3, magnitudes: __m256i, columns: &[f32; BLOCK]) -> __m256i {
        let (avx, avx2) = (simd.avx, simd.avx2);
        let [a, b]: [__m256i; 2] = cast(*columns);
        let no_sign = avx._mm256_set1_epi32(i32::MAX);
        let larger = avx2._mm256_max_epu32(avx2._mm256_and_si256(a, no_sign), avx2._mm256_and_si256(b, no_sign));
        avx2._mm256_max_epu32(magnitudes, larger)
    }

    #[inline(always)]
    fn largest(magnitudes: __m256i) -> f32 {
        let magnitudes: [f32; 8] = cast(magnitudes);
        magnitudes.into_iter().fold(0.0, f32::max)
    }
}

/// The last three bits of the fractions are dropped. What is left fits in the upper 16 bits of an f32, where its sign, exponent and
/// fraction belong, so three operations make floats (times 2^-112) of 16 numbers. In the second register the lower 16 bits hold the
/// neighbouring number, which changes the value by less than the bits that were dropped.
impl Element for f16 {
    const SCALE: f32 = RESCALE;
    const ERROR: f32 = 1.0 / 128.0;
    const MIN_MAGNITUDE: f32 = f16::MIN_POSITIVE.to_f32_const();

    fn place(column: usize) -> [usize; 2] {
        [column % 2, column / 2]
    }

    #[inline(always)]
    fn registers(simd: V3, columns: &[f16; BLOCK]) -> [__m256; 2] {
        let (avx, avx2) = (simd.avx, simd.avx2);
        // The upper half of the product with 2^13 is a shift by three, on another unit than shifts run on.
        let shifted = avx2._mm256_mulhi_epi16(cast(*columns), avx._mm256_set1_epi16(1 << 13));
        // Clears the copies of the sign that the shift leaves below it.
        let places = avx2._mm256_and_si256(shifted, avx._mm256_set1_epi16(0x8fff_u16 as i16));
        [cast(avx2._mm256_slli_epi32::<16>(places)), cast(places)]
    }

    #[inline(always)]
    fn larger(simd: V3, magnitudes: __m256i, columns: &[f16; BLOCK]) -> __m256i {
        let (avx, avx2) = (simd.avx, simd.avx2);
        let no_sign = avx._mm256_set1_epi16(i16::MAX);
        avx2._mm256_max_epu16(magnitudes, avx2._mm256_and_si256(cast(*columns), no_sign))
    }

    #[inline(always)]
    fn largest(magnitudes: __m256i) -> f32 {
        let magnitudes: [u16; 16] = cast(magnitudes);
        magnitudes.into_iter().fold(f16::ZERO, |largest, bits| largest.max(f16::from_bits(bits))).to_f32()
    }
}
