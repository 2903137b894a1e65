//! The prefilter for tables of f32 or f16.

#[cfg(target_arch = "x86")]
use std::arch::x86::{__m128, __m256};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m128, __m256};
use std::ops::Range;

use half::f16;
use pulp::x86::V3;
use pulp::{Simd, WithSimd, cast};

use super::prefilter_element::{BLOCK, Element};
use super::quad::QUAD;
use super::tile_magnitudes::TileMagnitudes;
use crate::backend::cpu::dot::micro_kernel::TILE;
use crate::backend::cpu::simd::prefetch::{CACHE_LINE, prefetch};
use crate::tables::{Dtype, Table};

/// Bytes between what is multiplied and what is prefetched: memory takes longer than a tile.
const PREFETCH_DISTANCE: usize = 4096;

/// The numbers of a query for one block of columns, in the order in which [`Element::registers`] has them.
type Weights = [[f32; BLOCK / 2]; 2];

/// A query in blocks.
pub struct FloatPrefilter {
    simd: V3,
    groups: Range<usize>,
    weights: Vec<Weights>,
    /// For the last BLOCK columns of an item: zeros for columns that belong to a whole block.
    last: Weights,
    /// Sum of the magnitudes of the query: its L1 norm.
    norm: f64,
}

impl FloatPrefilter {
    /// For a query of as many finite `values` as the `groups` of an item of `table` have. `None` for tables of 8-bit items, for fewer than
    /// BLOCK values, and if the values overflow when scaled.
    pub fn new(simd: V3, values: &[f32], table: &Table, groups: Range<usize>) -> Option<FloatPrefilter> {
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
        Some(FloatPrefilter {
            simd,
            groups,
            weights: blocks.iter().map(weights_of).collect(),
            last: weights_of(&last),
            norm: values.iter().map(|value| f64::from(value.abs())).sum(),
        })
    }

    /// As [`Prefilter::passing`](super::prefilter::Prefilter::passing), for the `values` of the table.
    pub fn passing<E: Element>(
        &self,
        table: &Table,
        values: &[E],
        magnitudes: &TileMagnitudes,
        tiles: Range<usize>,
        threshold: f32,
    ) -> u32 {
        Simd::vectorize(self.simd, Passing { prefilter: self, table, values, magnitudes, tiles, threshold })
    }

    /// A bound of the difference between a sum of this prefilter and the score, for `width` columns and items with magnitudes up to
    /// `largest`: the error of the numbers, and the errors of both sums, each at most `width * 2^-24` times the sum of the magnitudes of
    /// its products (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1; doubled here to cover the higher powers).
    fn margin<E: Element>(&self, largest: f32, width: usize) -> f64 {
        let products = self.norm * f64::from(largest.max(E::MIN_MAGNITUDE));
        // Sums may overflow.
        if products > f64::from(f32::MAX) / 2.0 {
            return f64::INFINITY;
        }
        products * (f64::from(E::ERROR) * 1.01 + (width + 1) as f64 * 2f64.powi(-22)) + f64::from(f32::MIN_POSITIVE)
    }
}

struct Passing<'a, E> {
    prefilter: &'a FloatPrefilter,
    table: &'a Table,
    values: &'a [E],
    magnitudes: &'a TileMagnitudes,
    tiles: Range<usize>,
    threshold: f32,
}

impl<E: Element> WithSimd for Passing<'_, E> {
    type Output = u32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> u32 {
        match (self.prefilter.groups.len() == self.table.groups(), self.table.width()) {
            (true, 64) => self.passing::<64>(),
            (true, 128) => self.passing::<128>(),
            _ => self.passing::<0>(),
        }
    }
}

impl<E: Element> Passing<'_, E> {
    /// For whole items of WIDTH columns, or any vectors of items if WIDTH is 0. Loops of constant length are unrolled and need no bounds
    /// checks.
    #[inline(always)]
    fn passing<const WIDTH: usize>(self) -> u32 {
        let Passing { prefilter, table, values, magnitudes, tiles, threshold } = self;
        // Magnitudes are those of whole items.
        let whole = prefilter.groups.len() == table.groups();
        let first = prefilter.groups.start * table.group_width();
        let (stride, columns) = match WIDTH {
            0 => (table.width(), first..first + prefilter.groups.len() * table.group_width()),
            _ => (WIDTH, 0..WIDTH),
        };
        let width = columns.len();
        let mut passing = 0;
        for (bit, tile) in tiles.enumerate() {
            let items = &values[tile * TILE * stride..][..TILE * stride];
            let known = magnitudes.get(tile).filter(|_| whole);
            let (best, largest) = match known {
                Some(largest) => (prefilter.best::<E, false>(items, stride, columns.clone()).0, largest),
                None => {
                    let (best, largest) = prefilter.best::<E, true>(items, stride, columns.clone());
                    if whole {
                        magnitudes.set(tile, largest);
                    }
                    (best, largest)
                }
            };
            let below = f64::from(best) < f64::from(threshold) - prefilter.margin::<E>(largest, width);
            passing |= u32::from(!below) << bit;
        }
        passing
    }
}

impl FloatPrefilter {
    /// The largest sum of an item of a tile and, if FIND_LARGEST, the largest magnitude in the `columns` of its items.
    #[inline(always)]
    fn best<E: Element, const FIND_LARGEST: bool>(
        &self,
        items: &[E],
        stride: usize,
        columns: Range<usize>,
    ) -> (f32, f32) {
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
                        if bytes.is_multiple_of(CACHE_LINE) {
                            // Whole items are prefetched in the order of memory, which hardware prefetchers recognise.
                            let next = match columns.len() == stride {
                                true => rows[0].as_ptr() as usize + bytes * QUAD + i * CACHE_LINE,
                                false => block.as_ptr() as usize,
                            };
                            prefetch(next + PREFETCH_DISTANCE);
                        }
                        sums[i] = add_products(simd, sums[i], block, weights);
                        if FIND_LARGEST {
                            magnitudes = E::larger(simd, magnitudes, block);
                        }
                    }
                }
            }
            if !columns.len().is_multiple_of(BLOCK) {
                for i in 0..QUAD {
                    if let Some(block) = rows[i].last_chunk() {
                        sums[i] = add_products(simd, sums[i], block, &self.last);
                        if FIND_LARGEST {
                            magnitudes = E::larger(simd, magnitudes, block);
                        }
                    }
                }
            }
            best = simd.sse._mm_max_ps(best, sum_lanes(simd, sums));
        }
        let best: [f32; QUAD] = cast(best);
        (best.into_iter().fold(f32::NEG_INFINITY, f32::max), if FIND_LARGEST { E::largest(magnitudes) } else { 0.0 })
    }
}

#[inline(always)]
fn add_products<E: Element>(simd: V3, sum: __m256, block: &[E; BLOCK], weights: &Weights) -> __m256 {
    let [a, b] = E::registers(simd, block);
    let sum = simd.fma._mm256_fmadd_ps(a, cast(weights[0]), sum);
    simd.fma._mm256_fmadd_ps(b, cast(weights[1]), sum)
}

/// For each item the sum of the lanes of its register.
#[inline(always)]
fn sum_lanes(simd: V3, sums: [__m256; QUAD]) -> __m128 {
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
    use crate::backend::cpu::dot::item_tile::ItemTile;
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

    /// Items from numbers of about `size` down to 10^-7 of it: for a size of 1 to subnormal numbers of f16.
    fn table(groups: usize, width: usize, dtype: Dtype, size: f32) -> Table {
        let mut table = Table::new(groups, width, dtype);
        let value = |i: usize| size * (i as f32 * 0.7).sin() * 10f32.powi(-(i as i32 % 8));
        table.append(&(0..3 * TILE * groups * width).map(value).collect::<Vec<f32>>());
        table
    }

    fn passing(
        prefilter: &FloatPrefilter,
        table: &Table,
        magnitudes: &TileMagnitudes,
        tile: usize,
        threshold: f32,
    ) -> bool {
        let tiles = tile..tile + 1;
        let passing = match table.values() {
            Values::F32(values) => prefilter.passing(table, values.as_slice(), magnitudes, tiles, threshold),
            Values::F16(values) => prefilter.passing(table, values.as_slice(), magnitudes, tiles, threshold),
            Values::I8(_) => unreachable!("tables of floats"),
        };
        assert!(passing <= 1);
        passing == 1
    }

    /// The best score of a tile, and the margin of the prefilter.
    fn best_and_margin(prefilter: &FloatPrefilter, table: &Table, tile: usize, query: &[f32]) -> (f32, f64) {
        let (mut item_tile, mut scores) = (ItemTile::default(), vec![0.0; TILE]);
        let groups = prefilter.groups.clone();
        let lanes = item_tile.load(table, groups.clone(), TILE, |lane| tile * TILE + lane);
        let largest = lanes.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        run(Scores(&RowBlocks::from_rows(query, 1, query.len()), lanes, &mut scores));
        let margin = match table.dtype() {
            Dtype::F32 => prefilter.margin::<f32>(largest, query.len()),
            _ => prefilter.margin::<f16>(largest, query.len()),
        };
        (scores.into_iter().fold(f32::NEG_INFINITY, f32::max), margin)
    }

    #[test]
    fn tiles_pass_at_their_best_score_and_not_far_above_it() {
        let Some(simd) = avx2() else { return };
        let mut lost_without_margin = 0;
        for (dtype, size) in [(Dtype::F32, 1.0), (Dtype::F32, 1e30), (Dtype::F16, 1.0), (Dtype::F16, 6e4)] {
            for (groups, width) in [(1, 16), (1, 17), (1, 64), (1, 100), (1, 128), (2, 64), (3, 21), (4, 16)] {
                for of_item in [0..groups, groups - 1..groups] {
                    let table = table(groups, width, dtype, size);
                    let query: Vec<f32> = (0..of_item.len() * width).map(|i| (i as f32 * 1.3).cos()).collect();
                    let name = format!("{dtype:?} {size} {groups}x{width} {of_item:?}");
                    let mut prefilter = FloatPrefilter::new(simd, &query, &table, of_item.clone()).expect(&name);
                    let magnitudes = TileMagnitudes::new(3);
                    // Once before magnitudes are known, and once after.
                    for tile in [0, 1, 2, 0, 1, 2] {
                        let (best, margin) = best_and_margin(&prefilter, &table, tile, &query);
                        assert!(margin > 0.0, "{name}");
                        assert!(passing(&prefilter, &table, &magnitudes, tile, best), "{name}");
                        let far = (f64::from(best) + 2.01 * margin) as f32;
                        assert!(!passing(&prefilter, &table, &magnitudes, tile, far), "{name}");
                        assert_eq!(magnitudes.get(tile).is_some(), of_item.len() == groups, "{name}");
                    }
                    prefilter.norm = 0.0;
                    let lost = |&tile: &usize| {
                        let (best, _) = best_and_margin(&prefilter, &table, tile, &query);
                        !passing(&prefilter, &table, &magnitudes, tile, best)
                    };
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
            let prefilter = FloatPrefilter::new(simd, &[-0.5; 64], &table, 0..1).expect("a query that suits it");
            let margin = match dtype {
                Dtype::F32 => prefilter.margin::<f32>(3.0, 64),
                _ => prefilter.margin::<f16>(3.0, 64),
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
            let prefilter = FloatPrefilter::new(simd, &[1.0; 40], &table, 0..1).expect("a query that suits it");
            let magnitudes = TileMagnitudes::new(4);
            let passing = |threshold: f32| passing(&prefilter, &table, &magnitudes, 3, threshold);
            assert!(!passing(5.0) && passing(39.0 * 0.25 - 8.0));
            assert_eq!(magnitudes.get(3), Some(8.0));
        }
    }

    #[test]
    fn tiles_pass_where_sums_may_overflow() {
        let Some(simd) = avx2() else { return };
        let table = table(1, 16, Dtype::F32, 1e30);
        let prefilter = FloatPrefilter::new(simd, &[1e8; 16], &table, 0..1).expect("a query that suits it");
        assert!(passing(&prefilter, &table, &TileMagnitudes::new(3), 0, f32::MAX));
        let f16_table = self::table(1, 16, Dtype::F16, 1.0);
        assert!(FloatPrefilter::new(simd, &[65536.0; 16], &f16_table, 0..1).is_none(), "scaled values overflow");
        assert!(FloatPrefilter::new(simd, &[1.0; 15], &self::table(1, 15, Dtype::F32, 1.0), 0..1).is_none(), "narrow");
    }
}
