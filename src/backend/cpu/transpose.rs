//! Blocks of floats, turned in registers.

use pulp::cast;
use pulp::x86::V3;

/// Rows and columns of a block.
pub const BLOCK: usize = 8;

/// The block with rows for columns: three rounds of swaps, of single lanes, of pairs, of halves.
#[inline(always)]
pub fn transpose(simd: V3, block: [[f32; BLOCK]; BLOCK]) -> [[f32; BLOCK]; BLOCK] {
    let avx = simd.avx;
    let r = block.map(cast);
    let mut pairs = r;
    for i in 0..4 {
        pairs[2 * i] = avx._mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        pairs[2 * i + 1] = avx._mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    let mut quads = r;
    for half in [0, 4] {
        for i in 0..2 {
            let (a, b) = (pairs[half + i], pairs[half + i + 2]);
            quads[half + 2 * i] = avx._mm256_shuffle_ps::<0b01_00_01_00>(a, b);
            quads[half + 2 * i + 1] = avx._mm256_shuffle_ps::<0b11_10_11_10>(a, b);
        }
    }
    let mut out = block;
    for i in 0..4 {
        out[i] = cast(avx._mm256_permute2f128_ps::<0x20>(quads[i], quads[i + 4]));
        out[i + 4] = cast(avx._mm256_permute2f128_ps::<0x31>(quads[i], quads[i + 4]));
    }
    out
}
