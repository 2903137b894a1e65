//! Four items at a time: their sums fill one register.

#[cfg(target_arch = "x86")]
use std::arch::x86::__m128i;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::__m128i;

use pulp::x86::V3;

/// Items whose sums are computed side by side.
pub const QUAD: usize = 4;

/// For each item the sum of the four lanes of its register.
#[inline(always)]
pub fn sum_lanes(simd: V3, [a, b, c, d]: [__m128i; QUAD]) -> __m128i {
    let sse2 = simd.sse2;
    let ab = sse2._mm_add_epi32(sse2._mm_unpacklo_epi32(a, b), sse2._mm_unpackhi_epi32(a, b));
    let cd = sse2._mm_add_epi32(sse2._mm_unpacklo_epi32(c, d), sse2._mm_unpackhi_epi32(c, d));
    sse2._mm_add_epi32(sse2._mm_unpacklo_epi64(ab, cd), sse2._mm_unpackhi_epi64(ab, cd))
}
