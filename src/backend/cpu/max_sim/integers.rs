//! The greatest inner products of quantized query vectors in lanes with the rows of an 8-bit item. Sums of integers are exact, as
//! those of [`Int8Tile`](crate::backend::cpu::dot::int8_tile::Int8Tile); an item of one vector has the same bits as there.

use pulp::{Simd, WithSimd};

use crate::backend::cpu::dot::int8_tile::{MAX_PAIRS, OCTET};
use crate::backend::cpu::dot::micro_kernel::TILE;
use crate::backend::cpu::simd::{Portable, run_with_kernel};

/// Two columns of a row.
pub type Pair = [i16; 2];

/// Two columns of the query vectors in eight lanes.
pub type Octet = [Pair; OCTET];

/// Octets of a tile.
pub const OCTETS: usize = TILE / OCTET;

/// Rows in one block: with two registers of lanes each they make eight independent sums.
const ROWS: usize = 4;

/// Writes the greatest product of each lane with the rows, of which there is at least one, still to be multiplied with the scale
/// of the query vector.
pub struct MaxProducts<'a> {
    /// (rows, pairs)
    pub rows: &'a [Pair],
    /// (rows)
    pub scales: &'a [f32],
    pub pairs: usize,
    /// (tiles, pairs, OCTETS)
    pub lanes: &'a [[Octet; OCTETS]],
    /// (tiles, TILE)
    pub maxima: &'a mut [f32],
}

impl MaxProducts<'_> {
    /// By the widest instructions of this machine.
    pub fn run(self) {
        let task = self;
        run_with_kernel!(kernel => Task { kernel, task });
    }
}

struct Task<'a, K> {
    kernel: K,
    task: MaxProducts<'a>,
}

impl<K: Kernel> WithSimd for Task<'_, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let MaxProducts { rows, scales, pairs, lanes, maxima } = self.task;
        let pairs = pairs.max(1);
        for (lanes, maxima) in lanes.chunks_exact(pairs).zip(maxima.chunks_exact_mut(TILE)) {
            maxima.fill(f32::NEG_INFINITY);
            for (rows, scales) in rows.chunks(ROWS * pairs).zip(scales.chunks(ROWS)) {
                let last = scales.len() - 1;
                let rows: [&[Pair]; ROWS] = std::array::from_fn(|r| &rows[r.min(last) * pairs..][..pairs]);
                for first in (0..OCTETS).step_by(2) {
                    let mut totals = [[[0.0; OCTET]; 2]; ROWS];
                    for part in (0..pairs).step_by(MAX_PAIRS) {
                        let end = pairs.min(part + MAX_PAIRS);
                        let sums = self.kernel.sums(&lanes[part..end], first, rows.map(|row| &row[part..end]));
                        for r in 0..ROWS {
                            for half in 0..2 {
                                for lane in 0..OCTET {
                                    totals[r][half][lane] += sums[r][half][lane] as f32;
                                }
                            }
                        }
                    }
                    let maxima = &mut maxima[first * OCTET..][..2 * OCTET];
                    for (totals, scale) in totals.iter().zip(scales) {
                        for (maximum, total) in maxima.iter_mut().zip(totals.as_flattened()) {
                            *maximum = maximum.max(total * scale);
                        }
                    }
                }
            }
        }
    }
}

/// The inner loop, by one instruction set.
trait Kernel {
    /// The sums over at most [`MAX_PAIRS`] pairs of columns of the products of R rows with the octets `first` and `first + 1`.
    fn sums<const R: usize>(
        &self,
        lanes: &[[Octet; OCTETS]],
        first: usize,
        rows: [&[Pair]; R],
    ) -> [[[i32; OCTET]; 2]; R];
}

impl Kernel for Portable {
    #[inline(always)]
    fn sums<const R: usize>(
        &self,
        lanes: &[[Octet; OCTETS]],
        first: usize,
        rows: [&[Pair]; R],
    ) -> [[[i32; OCTET]; 2]; R] {
        let mut sums = [[[0; OCTET]; 2]; R];
        for (pair, lanes) in lanes.iter().enumerate() {
            for (sums, row) in sums.iter_mut().zip(rows) {
                let [q, r] = row[pair].map(i32::from);
                for (sums, lanes) in sums.iter_mut().zip(&lanes[first..first + 2]) {
                    for (sum, &[x, y]) in sums.iter_mut().zip(lanes) {
                        *sum += i32::from(x) * q + i32::from(y) * r;
                    }
                }
            }
        }
        sums
    }
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
impl Kernel for pulp::x86::V3 {
    #[inline(always)]
    fn sums<const R: usize>(
        &self,
        lanes: &[[Octet; OCTETS]],
        first: usize,
        rows: [&[Pair]; R],
    ) -> [[[i32; OCTET]; 2]; R] {
        let (avx, avx2) = (self.avx, self.avx2);
        let mut sums = [[avx._mm256_setzero_si256(); 2]; R];
        let rows = rows.map(|row| &row[..lanes.len()]);
        for (pair, lanes) in lanes.iter().enumerate() {
            let (a, b) = (pulp::cast(lanes[first]), pulp::cast(lanes[first + 1]));
            for r in 0..R {
                let row = avx._mm256_set1_epi32(pulp::cast(rows[r][pair]));
                sums[r][0] = avx2._mm256_add_epi32(sums[r][0], avx2._mm256_madd_epi16(a, row));
                sums[r][1] = avx2._mm256_add_epi32(sums[r][1], avx2._mm256_madd_epi16(b, row));
            }
        }
        let mut out = [[[0; OCTET]; 2]; R];
        for r in 0..R {
            out[r] = [pulp::cast(sums[r][0]), pulp::cast(sums[r][1])];
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use pulp::Arch;

    use super::*;

    #[test]
    fn every_kernel_finds_the_same_bits() {
        for (pairs, n) in [(1, 1), (8, 5), (600, 9)] {
            let mut state = 7u32;
            let mut random = |most: i16| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 16) as i16 % most
            };
            let rows: Vec<Pair> = (0..n * pairs).map(|_| [random(128), random(128)]).collect();
            let scales: Vec<f32> = (0..n).map(|i| 0.01 + i as f32 * 0.003).collect();
            let mut octets = || std::array::from_fn(|_| std::array::from_fn(|_| [random(32513), random(32513)]));
            let lanes: Vec<[Octet; OCTETS]> = (0..2 * pairs).map(|_| octets()).collect();
            let (mut expected, mut found) = (vec![0.0; 2 * TILE], vec![0.0; 2 * TILE]);
            let task = MaxProducts { rows: &rows, scales: &scales, pairs, lanes: &lanes, maxima: &mut expected };
            Arch::new().dispatch(Task { kernel: Portable, task });
            MaxProducts { rows: &rows, scales: &scales, pairs, lanes: &lanes, maxima: &mut found }.run();
            assert!(expected[0] != expected[1] && expected.iter().all(|x| x.is_finite()));
            assert_eq!(found, expected, "{n} rows of {pairs} pairs");
        }
    }
}
