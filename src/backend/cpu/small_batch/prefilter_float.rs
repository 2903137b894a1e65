//! A sieve for items of floats or halves.

#[cfg(target_arch = "x86")]
use std::arch::x86::{__m128, __m256};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m128, __m256};
use std::ops::Range;

use half::f16;
use pulp::x86::V3;
use pulp::{Simd, WithSimd, cast};

use super::element::{BLOCK, Element};
use crate::backend::cpu::dot::micro_kernel::TILE;
use crate::backend::cpu::simd::prefetch::ask_for;
use crate::tables::{Dtype, Table};

/// Items whose sums are kept side by side.
const QUAD: usize = 4;

/// Bytes from what is multiplied to what is asked for: memory takes longer than a tile.
const AHEAD: usize = 4096;

/// Bytes of a cache line.
const LINE: usize = 64;

/// A number for each column of a block, in the two registers that the columns of items come in.
type Weights = [[f32; BLOCK / 2]; 2];

/// What items are multiplied with.
pub struct FloatSieve {
    simd: V3,
    groups: Range<usize>,
    weights: Vec<Weights>,
    /// For the last BLOCK columns: zeros where these belong to a whole block.
    last: Weights,
    /// Sum of the magnitudes of the query.
    norm: f64,
}

impl FloatSieve {
    /// For a query of as many finite `values` as the `groups` of an item of `table` have.
    pub fn new(simd: V3, values: &[f32], table: &Table, groups: Range<usize>) -> Option<FloatSieve> {
        let (place, scale): (fn(usize) -> [usize; 2], f32) = match table.dtype() {
            Dtype::F32 => (f32::place, f32::SCALE),
            Dtype::F16 => (f16::place, f16::SCALE),
            Dtype::I8 => return None,
        };
        let scaled: Vec<f32> = values.iter().map(|value| value * scale).collect();
        if values.len() < BLOCK || !scaled.iter().all(|value| value.is_finite()) {
            return None;
        }
        let weights_of = |columns: &[f32; BLOCK]| {
            let mut weights = [[0.0; BLOCK / 2]; 2];
            for (i, column) in columns.iter().enumerate() {
                let [register, lane] = place(i);
                weights[register][lane] = *column;
            }
            weights
        };
        let (blocks, rest) = scaled.as_chunks();
        let mut last = [0.0; BLOCK];
        last[BLOCK - rest.len()..].copy_from_slice(rest);
        Some(FloatSieve {
            simd,
            groups,
            weights: blocks.iter().map(weights_of).collect(),
            last: weights_of(&last),
            norm: values.iter().map(|value| f64::from(value.abs())).sum(),
        })
    }

    /// As [`Sieve::passing`](super::prefilter::Sieve::passing), for the `values` of the table.
    pub fn passing<E: Element>(&self, table: &Table, values: &[E], tiles: Range<usize>, floor: f32) -> u32 {
        Simd::vectorize(self.simd, Passing { sieve: self, table, values, tiles, floor })
    }

    /// By how much a sum of products with numbers up to `largest` may differ from the score, for `width` columns: by the error of
    /// the numbers, and by that of two sums, each of which is off by at most 2^-24 of the magnitudes of its products for each of
    /// them. (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1; more than twice of that, for its higher powers.)
    fn margin<E: Element>(&self, largest: f32, width: usize) -> f64 {
        let products = self.norm * f64::from(largest.max(E::LEAST));
        // Sums that may leave the range of floats are nothing to go by.
        if products > f64::from(f32::MAX) / 2.0 {
            return f64::INFINITY;
        }
        products * (f64::from(E::ERROR) * 1.01 + (width + 1) as f64 * 2f64.powi(-22)) + f64::from(f32::MIN_POSITIVE)
    }
}

struct Passing<'a, E> {
    sieve: &'a FloatSieve,
    table: &'a Table,
    values: &'a [E],
    tiles: Range<usize>,
    floor: f32,
}

impl<E: Element> WithSimd for Passing<'_, E> {
    type Output = u32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> u32 {
        match (self.sieve.groups.len() == self.table.groups(), self.table.width()) {
            (true, 64) => self.passing::<64>(),
            (true, 128) => self.passing::<128>(),
            _ => self.passing::<0>(),
        }
    }
}

impl<E: Element> Passing<'_, E> {
    /// For whole items of WIDTH columns, or for anything if it is 0: loops of known lengths are unrolled, and nothing is checked in
    /// them.
    #[inline(always)]
    fn passing<const WIDTH: usize>(self) -> u32 {
        let Passing { sieve, table, values, tiles, floor } = self;
        let (magnitudes, whole) = (table.magnitudes(), sieve.groups.len() == table.groups());
        let first = sieve.groups.start * table.group_width();
        let (stride, columns) = match WIDTH {
            0 => (table.width(), first..first + sieve.groups.len() * table.group_width()),
            _ => (WIDTH, 0..WIDTH),
        };
        let width = columns.len();
        let mut passing = 0;
        for (bit, tile) in tiles.enumerate() {
            let items = &values[tile * TILE * stride..][..TILE * stride];
            let known = magnitudes.get(tile).filter(|_| whole);
            let (best, largest) = match known {
                Some(largest) => (sieve.best::<E, false>(items, stride, columns.clone()).0, largest),
                None => {
                    let (best, largest) = sieve.best::<E, true>(items, stride, columns.clone());
                    if whole {
                        magnitudes.set(table.rows().div_ceil(TILE), tile, largest);
                    }
                    (best, largest)
                }
            };
            let below = f64::from(best) < f64::from(floor) - sieve.margin::<E>(largest, width);
            passing |= u32::from(!below) << bit;
        }
        passing
    }
}

impl FloatSieve {
    /// The largest sum of an item of a tile, and, if LOOK, the largest magnitude of its numbers in the `columns`.
    #[inline(always)]
    fn best<E: Element, const LOOK: bool>(&self, items: &[E], stride: usize, columns: Range<usize>) -> (f32, f32) {
        let simd = self.simd;
        let mut best = simd.sse._mm_set1_ps(f32::NEG_INFINITY);
        let mut magnitudes = simd.avx._mm256_setzero_si256();
        for quad in 0..TILE / QUAD {
            let row = |i: usize| &items[(quad * QUAD + i) * stride..][..stride][columns.clone()];
            let rows = [row(0), row(1), row(2), row(3)];
            let mut sums = [simd.avx._mm256_setzero_ps(); QUAD];
            for (index, weights) in self.weights[..columns.len() / BLOCK].iter().enumerate() {
                for i in 0..QUAD {
                    if let Some(block) = rows[i][index * BLOCK..].first_chunk() {
                        let bytes = index * size_of::<[E; BLOCK]>();
                        if bytes.is_multiple_of(LINE) {
                            // Whole items are asked for in the order in which they lie, which is one that prefetchers know.
                            let soon = match columns.len() == stride {
                                true => rows[0].as_ptr() as usize + bytes * QUAD + i * LINE,
                                false => block.as_ptr() as usize,
                            };
                            ask_for(soon + AHEAD);
                        }
                        sums[i] = add_products(simd, sums[i], block, weights);
                        if LOOK {
                            magnitudes = E::larger(simd, magnitudes, block);
                        }
                    }
                }
            }
            if !columns.len().is_multiple_of(BLOCK) {
                for i in 0..QUAD {
                    if let Some(block) = rows[i].last_chunk() {
                        sums[i] = add_products(simd, sums[i], block, &self.last);
                        if LOOK {
                            magnitudes = E::larger(simd, magnitudes, block);
                        }
                    }
                }
            }
            best = simd.sse._mm_max_ps(best, totals(simd, sums));
        }
        let best: [f32; QUAD] = cast(best);
        (best.into_iter().fold(f32::NEG_INFINITY, f32::max), if LOOK { E::largest(magnitudes) } else { 0.0 })
    }
}

#[inline(always)]
fn add_products<E: Element>(simd: V3, sum: __m256, block: &[E; BLOCK], weights: &Weights) -> __m256 {
    let [a, b] = E::registers(simd, block);
    let sum = simd.fma._mm256_fmadd_ps(a, cast(weights[0]), sum);
    simd.fma._mm256_fmadd_ps(b, cast(weights[1]), sum)
}

/// The sum of the lanes of each register.
#[inline(always)]
fn totals(simd: V3, sums: [__m256; QUAD]) -> __m128 {
    let sse = simd.sse;
    let mut halves = [sse._mm_setzero_ps(); QUAD];
    for i in 0..QUAD {
        let [low, high]: [__m128; 2] = cast(sums[i]);
        halves[i] = sse._mm_add_ps(low, high);
    }
    let [a, b, c, d] = halves;
    let ab = sse._mm_add_ps(sse._mm_unpacklo_ps(a, b), sse._mm_unpackhi_ps(a, b));
    let cd = sse._mm_add_ps(sse._mm_unpacklo_ps(c, d), sse._mm_unpackhi_ps(c, d));
    sse._mm_add_ps(sse._mm_movelh_ps(ab, cd), sse._mm_movehl_ps(cd, ab))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::dot::item_tile::Lanes;
    use crate::backend::cpu::dot::micro_kernel::{RowBlocks, Store};
    use crate::backend::cpu::simd::avx2;
    use crate::backend::cpu::simd::run;
    use crate::tables::Values;

    /// Scores of the items of a tile as scans find them.
    struct Scores<'a>(&'a RowBlocks, &'a [f32], &'a mut [f32]);

    impl WithSimd for Scores<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            self.0.multiply(simd, self.1, &mut Store(self.2));
        }
    }

    /// Items from ordinary numbers down to halves that are subnormal, or of any other size.
    fn table(groups: usize, width: usize, dtype: Dtype, size: f32) -> Table {
        let mut table = Table::new(groups, width, dtype);
        let value = |i: usize| size * (i as f32 * 0.7).sin() * 10f32.powi(-(i as i32 % 8));
        table.append(&(0..3 * TILE * groups * width).map(value).collect::<Vec<f32>>());
        table
    }

    fn passing(sieve: &FloatSieve, table: &Table, tile: usize, floor: f32) -> bool {
        let passing = match table.values() {
            Values::F32(values) => sieve.passing(table, values.as_slice(), tile..tile + 1, floor),
            Values::F16(values) => sieve.passing(table, values.as_slice(), tile..tile + 1, floor),
            Values::I8(_) => unreachable!("tables of floats"),
        };
        assert!(passing <= 1);
        passing == 1
    }

    /// The best score of a tile, and by how much sums may differ.
    fn best_and_margin(sieve: &FloatSieve, table: &Table, tile: usize, query: &[f32]) -> (f32, f64) {
        let (mut lanes, mut scores) = (Lanes::default(), vec![0.0; TILE]);
        let groups = sieve.groups.clone();
        let lanes = lanes.load(table, groups.clone(), TILE, |lane| tile * TILE + lane);
        let largest = lanes.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        run(Scores(&RowBlocks::from_rows(query, 1, query.len()), lanes, &mut scores));
        let margin = match table.dtype() {
            Dtype::F32 => sieve.margin::<f32>(largest, query.len()),
            _ => sieve.margin::<f16>(largest, query.len()),
        };
        (scores.into_iter().fold(f32::NEG_INFINITY, f32::max), margin)
    }

    #[test]
    fn a_tile_passes_if_its_best_score_may_be_the_floor_and_not_if_that_is_far_below() {
        let Some(simd) = avx2() else { return };
        let mut lost_without_margin = 0;
        for (dtype, size) in [(Dtype::F32, 1.0), (Dtype::F32, 1e30), (Dtype::F16, 1.0), (Dtype::F16, 6e4)] {
            for (groups, width) in [(1, 16), (1, 17), (1, 64), (1, 100), (1, 128), (2, 64), (3, 21), (4, 16)] {
                for of_item in [0..groups, groups - 1..groups] {
                    let table = table(groups, width, dtype, size);
                    let query: Vec<f32> = (0..of_item.len() * width).map(|i| (i as f32 * 1.3).cos()).collect();
                    let name = format!("{dtype:?} {size} {groups}x{width} {of_item:?}");
                    let mut sieve = FloatSieve::new(simd, &query, &table, of_item.clone()).expect(&name);
                    // Once before magnitudes are known, and once after.
                    for tile in [0, 1, 2, 0, 1, 2] {
                        let (best, margin) = best_and_margin(&sieve, &table, tile, &query);
                        assert!(margin > 0.0, "{name}");
                        assert!(passing(&sieve, &table, tile, best), "{name}");
                        let far = (f64::from(best) + 2.01 * margin) as f32;
                        assert!(!passing(&sieve, &table, tile, far), "{name}");
                        assert_eq!(table.magnitudes().get(tile).is_some(), of_item.len() == groups, "{name}");
                    }
                    sieve.norm = 0.0;
                    let lost =
                        |&tile: &usize| !passing(&sieve, &table, tile, best_and_margin(&sieve, &table, tile, &query).0);
                    lost_without_margin += (0..3).filter(lost).count();
                }
            }
        }
        assert!(lost_without_margin > 10, "{lost_without_margin}");
    }

    #[test]
    fn margins_are_small_parts_of_the_largest_products() {
        let Some(simd) = avx2() else { return };
        for (dtype, most) in [(Dtype::F32, 2e-5), (Dtype::F16, 8e-3)] {
            let table = table(1, 64, dtype, 1.0);
            let sieve = FloatSieve::new(simd, &[-0.5; 64], &table, 0..1).expect("a sieve");
            let margin = match dtype {
                Dtype::F32 => sieve.margin::<f32>(3.0, 64),
                _ => sieve.margin::<f16>(3.0, 64),
            };
            assert!(margin > 0.0 && margin < most * 0.5 * 64.0 * 3.0, "{dtype:?}: {margin}");
        }
    }

    #[test]
    fn magnitudes_are_the_largest_of_a_tile() {
        let Some(simd) = avx2() else { return };
        for dtype in [Dtype::F32, Dtype::F16] {
            let mut table = table(1, 40, dtype, 1.0);
            let mut row = [0.25; 40];
            row[37] = -8.0;
            table.append(&row.repeat(TILE));
            let sieve = FloatSieve::new(simd, &[1.0; 40], &table, 0..1).expect("a sieve");
            assert!(!passing(&sieve, &table, 3, 5.0) && passing(&sieve, &table, 3, 39.0 * 0.25 - 8.0));
            assert_eq!(table.magnitudes().get(3), Some(8.0));
            table.append(&[100.0; 40]);
            assert_eq!(table.magnitudes().get(3), None, "a table that has changed");
        }
    }

    #[test]
    fn sums_that_may_leave_the_range_of_floats_pass() {
        let Some(simd) = avx2() else { return };
        let table = table(1, 16, Dtype::F32, 1e30);
        let sieve = FloatSieve::new(simd, &[1e8; 16], &table, 0..1).expect("a sieve");
        assert!(passing(&sieve, &table, 0, f32::MAX));
        let halves = self::table(1, 16, Dtype::F16, 1.0);
        assert!(FloatSieve::new(simd, &[65536.0; 16], &halves, 0..1).is_none(), "weights that would be infinite");
        assert!(FloatSieve::new(simd, &[1.0; 15], &self::table(1, 15, Dtype::F32, 1.0), 0..1).is_none(), "narrow");
    }
}
