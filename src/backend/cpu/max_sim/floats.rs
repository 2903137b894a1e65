//! The greatest inner products of query vectors in lanes with the rows of an item, in floats.

use pulp::{Simd, WithSimd};

use crate::backend::cpu::dot::micro_kernel::{TILE, store};
use crate::backend::cpu::simd::prefetch::{CACHE_LINE, prefetch};

/// Steps of the depth that are unrolled.
const UNROLLED: usize = 8;

/// Rows in one block where there are 32 registers; two registers of lanes each make 24 independent sums.
const MANY_ROWS: usize = 12;

/// Rows in one block where there are 16 registers, and of the last rows of an item.
const FEW_ROWS: usize = 4;

/// Writes the greatest product of each lane with the rows, of which there is at least one. Each product is one chain of fused
/// multiply-adds in order of depth.
pub struct MaxProducts<'a> {
    /// (rows, depth)
    pub rows: &'a [f32],
    pub depth: usize,
    /// Whether the rows lie in a table, where more follow: those of the next block are prefetched. Hardware prefetchers do not expect
    /// them, since several rows are read side by side.
    pub in_table: bool,
    /// (tiles, depth, TILE): query vectors.
    pub lanes: &'a [f32],
    /// (tiles, TILE)
    pub maxima: &'a mut [f32],
}

impl WithSimd for MaxProducts<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let MaxProducts { rows, depth, in_table, lanes, maxima } = self;
        let depth = depth.max(1);
        let tiles = lanes.chunks_exact(depth * TILE);
        for (number, (tile, maxima)) in tiles.zip(maxima.chunks_exact_mut(TILE)).enumerate() {
            let (x, _) = S::as_simd_f32s(tile);
            // Only once: from then on they are in a cache.
            let ahead = in_table && number == 0;
            for first in (0..TILE / S::F32_LANES).step_by(2) {
                let mut best = [simd.splat_f32s(f32::NEG_INFINITY); 2];
                let mut rest = rows;
                if S::REGISTER_COUNT >= 32 {
                    while rest.len() >= MANY_ROWS * depth {
                        let (block, after) = rest.split_at(MANY_ROWS * depth);
                        raise::<S, MANY_ROWS>(simd, (block, depth, ahead && first == 0), x, first, &mut best);
                        rest = after;
                    }
                }
                while rest.len() >= FEW_ROWS * depth {
                    let (block, after) = rest.split_at(FEW_ROWS * depth);
                    raise::<S, FEW_ROWS>(simd, (block, depth, ahead && first == 0), x, first, &mut best);
                    rest = after;
                }
                // Some of the last rows are multiplied twice, which does not change a maximum and takes less time than a row alone.
                if !rest.is_empty() && rows.len() >= FEW_ROWS * depth {
                    let last = &rows[rows.len() - FEW_ROWS * depth..];
                    raise::<S, FEW_ROWS>(simd, (last, depth, ahead && first == 0), x, first, &mut best);
                    rest = &[];
                }
                for row in rest.chunks_exact(depth) {
                    raise::<S, 1>(simd, (row, depth, false), x, first, &mut best);
                }
                store::<S>(maxima, 0, first, best);
            }
        }
    }
}

/// Steps of the unrolled depth that a cache line lasts.
const LINE_STEPS: usize = CACHE_LINE / size_of::<f32>() / UNROLLED;

/// Raises `best` to the products of R rows with the lanes in the registers `first` and `first + 1` of a tile.
#[inline(always)]
fn raise<S: Simd, const R: usize>(
    simd: S,
    (rows, depth, ahead): (&[f32], usize, bool),
    x: &[S::f32s],
    first: usize,
    best: &mut [S::f32s; 2],
) {
    let registers = TILE / S::F32_LANES;
    let n = depth / UNROLLED;
    let mut sums = [[simd.splat_f32s(0.0); 2]; R];
    let (start, block) = (rows.as_ptr() as usize, size_of_val(rows));
    let rows: [&[f32]; R] = std::array::from_fn(|r| &rows[r * depth..(r + 1) * depth]);
    let parts = rows.map(|row| &row.as_chunks::<UNROLLED>().0[..n]);
    let (x, x_rest) = x.split_at(n * UNROLLED * registers);
    for (part, lanes) in x.chunks_exact(UNROLLED * registers).enumerate() {
        if ahead && part % LINE_STEPS == 0 {
            let next = start + block + part / LINE_STEPS * CACHE_LINE;
            for r in 0..R {
                prefetch(next + r * depth * size_of::<f32>());
            }
        }
        for step in 0..UNROLLED {
            let lanes = &lanes[step * registers + first..][..2];
            for r in 0..R {
                let weight = simd.splat_f32s(parts[r][part][step]);
                sums[r][0] = simd.mul_add_e_f32s(weight, lanes[0], sums[r][0]);
                sums[r][1] = simd.mul_add_e_f32s(weight, lanes[1], sums[r][1]);
            }
        }
    }
    for (step, lanes) in x_rest.chunks_exact(registers).enumerate() {
        for r in 0..R {
            let weight = simd.splat_f32s(rows[r][n * UNROLLED + step]);
            sums[r][0] = simd.mul_add_e_f32s(weight, lanes[first], sums[r][0]);
            sums[r][1] = simd.mul_add_e_f32s(weight, lanes[first + 1], sums[r][1]);
        }
    }
    for sums in sums {
        best[0] = simd.max_f32s(best[0], sums[0]);
        best[1] = simd.max_f32s(best[1], sums[1]);
    }
}
