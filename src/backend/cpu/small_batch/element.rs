//! Numbers of tables as a sieve multiplies them.

#[cfg(target_arch = "x86")]
use std::arch::x86::{__m256, __m256i};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256, __m256i};

use half::f16;
use pulp::cast;
use pulp::x86::V3;

use crate::backend::cpu::simd::widen::SMALL;

/// Columns that are multiplied at a time.
pub const BLOCK: usize = 16;

/// A number of a table.
pub trait Element: bytemuck::Pod {
    /// What the numbers in registers are too small by.
    const SCALE: f32;
    /// By how much a number in a register may be off, as a part of its value or of LEAST.
    const ERROR: f32;
    /// What smaller numbers are taken for where errors are concerned.
    const LEAST: f32;

    /// The register of a column of a block, and its lane.
    fn place(column: usize) -> [usize; 2];

    /// A block in registers.
    fn registers(simd: V3, columns: &[Self; BLOCK]) -> [__m256; 2];

    /// In each lane the larger magnitude, as bits, of what was there and of columns of a block.
    fn larger(simd: V3, magnitudes: __m256i, columns: &[Self; BLOCK]) -> __m256i;

    /// The largest of magnitudes.
    fn largest(magnitudes: __m256i) -> f32;
}

impl Element for f32 {
    const SCALE: f32 = 1.0;
    const ERROR: f32 = 0.0;
    const LEAST: f32 = 0.0;

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

/// Halves lose the last three bits of their fractions: then a sign, an exponent and what is left of the fraction fit in the upper
/// half of a float, at their places, and eight halves become floats too small by three operations. What is in the lower half of every
/// other one of these, its neighbour, makes up for less than was lost.
impl Element for f16 {
    const SCALE: f32 = SMALL;
    const ERROR: f32 = 1.0 / 128.0;
    const LEAST: f32 = f16::MIN_POSITIVE.to_f32_const();

    fn place(column: usize) -> [usize; 2] {
        [column % 2, column / 2]
    }

    #[inline(always)]
    fn registers(simd: V3, columns: &[f16; BLOCK]) -> [__m256; 2] {
        let (avx, avx2) = (simd.avx, simd.avx2);
        // A product with 2^13 of which the upper half is kept is a shift by three, for another unit of the processor.
        let shifted = avx2._mm256_mulhi_epi16(cast(*columns), avx._mm256_set1_epi16(1 << 13));
        // The sign, and what is not one of its copies in the bits below it.
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
