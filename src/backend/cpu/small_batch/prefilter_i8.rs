//! A sieve for 8-bit items.

#[cfg(target_arch = "x86")]
use std::arch::x86::__m128i;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::__m128i;
use std::ops::Range;

use pulp::x86::V3;
use pulp::{Simd, WithSimd, cast};

use crate::backend::cpu::dot::int8_tile::PART;
use crate::backend::cpu::dot::micro_kernel::TILE;
use crate::backend::cpu::dot::quantized::{BLOCK, FixedRows};
use crate::backend::cpu::simd::prefetch::ask_for;
use crate::tables::Table;

/// Items whose sums are kept side by side.
const QUAD: usize = 4;

/// Bytes from what is multiplied to what is asked for: memory takes longer than a tile.
const AHEAD: usize = 1024;

/// Blocks of products that are added in 16 bits.
const LAP: usize = 4;

/// Largest magnitude of a number of an item.
const LARGEST: i32 = 128;

/// What items are multiplied with: numbers of a query in steps so large that two products with 8-bit numbers make a sum of 16 bits,
/// and as many as [`LAP`] of these another.
pub struct IntegerSieve {
    simd: V3,
    group: usize,
    laps: Vec<Lap>,
    /// The blocks beyond them, and, last, the last BLOCK columns: zeros where these belong to another block.
    rest: Lap,
    /// Integers of the query in a step.
    step: f32,
    /// By how much the integers of the query, times those of an item, may add up to more than steps do.
    margin: f32,
    /// Of the query.
    scale: f32,
}

/// Integers for LAP blocks.
#[derive(Clone, Default)]
struct Lap {
    weights: [[i8; BLOCK]; LAP],
    /// What to begin with: items are multiplied as if 128 had been added to each number.
    bias: [i16; BLOCK / 2],
}

impl Lap {
    /// `weights` in steps; None if these are not large enough.
    fn of(weights: &[[i16; BLOCK]; LAP], step: f32) -> Option<Lap> {
        let mut lap = Lap::default();
        for lane in 0..BLOCK / 2 {
            let (mut sum, mut magnitudes) = (0, 0);
            for (weights, steps) in weights.iter().zip(&mut lap.weights) {
                let mut pair = [0; 2];
                for i in 0..2 {
                    let rounded = (f32::from(weights[2 * lane + i]) / step).round();
                    steps[2 * lane + i] = rounded as i8;
                    pair[i] = rounded as i32;
                }
                let [a, b] = pair;
                // Neither a number nor, with items from 0 to 255, two products may leave their range.
                let (most, least) = (a.max(0) + b.max(0), a.min(0) + b.min(0));
                if a.abs() > 127 || b.abs() > 127 || most.max(-least) * 255 > i32::from(i16::MAX) {
                    return None;
                }
                sum += a + b;
                magnitudes += a.abs() + b.abs();
            }
            // Sums may leave it on the way, but not at the end.
            if magnitudes * LARGEST > i32::from(i16::MAX) {
                return None;
            }
            lap.bias[lane] = (-LARGEST * sum) as i16;
        }
        Some(lap)
    }
}

impl IntegerSieve {
    /// For a query of as many finite `values` as the `groups` of an item of `table` have, if that is a single group, of [`BLOCK`] columns
    /// or more.
    pub fn new(simd: V3, values: &[f32], table: &Table, groups: Range<usize>) -> Option<IntegerSieve> {
        let width = table.group_width();
        if groups.len() != 1 || !(BLOCK..=2 * PART).contains(&width) {
            return None;
        }
        let queries = FixedRows::from_rows(values, width);
        let (row, scale) = queries.row(0);
        let row = &row[..width];
        let (blocks, beyond) = row.as_chunks::<BLOCK>();
        let (laps, blocks) = blocks.as_chunks::<LAP>();
        let mut rest = [[0; BLOCK]; LAP];
        rest[..blocks.len()].copy_from_slice(blocks);
        rest[LAP - 1][BLOCK - beyond.len()..].copy_from_slice(beyond);
        // From the least step by which numbers keep their range to one that keeps sums in theirs.
        let largest = row.iter().map(|value| value.unsigned_abs()).max().unwrap_or(0);
        let mut step = f32::from(largest.max(1)) / 127.0;
        let (laps, rest) = loop {
            let laps: Option<Vec<Lap>> = laps.iter().map(|weights| Lap::of(weights, step)).collect();
            match (laps, Lap::of(&rest, step)) {
                (Some(laps), Some(rest)) => break (laps, rest),
                _ => step *= 1.04,
            }
        };
        let off = |value: &i16| {
            let value = f32::from(*value);
            f64::from((value - (value / step).round() * step).abs())
        };
        let (off, sum): (f64, f64) = (row.iter().map(off).sum(), row.iter().map(|value| f64::from(value.abs())).sum());
        // Besides, rounding to floats may be off by 2^-24 of the largest sum, a few times.
        let margin = (f64::from(LARGEST) * (off + sum * 2f64.powi(-20)) + 1.0) as f32;
        Some(IntegerSieve { simd, group: groups.start, laps, rest, step, margin, scale })
    }

    /// As [`Sieve::passing`](crate::backend::cpu::small_batch::prefilter::Sieve::passing), for the `values` of the table.
    pub fn passing(&self, table: &Table, values: &[i8], tiles: Range<usize>, floor: f32) -> u32 {
        Simd::vectorize(self.simd, Passing { sieve: self, table, values, tiles, floor })
    }

    /// No less than the score of any item of a tile.
    #[inline(always)]
    fn bound(&self, items: &[i8], scales: &[f32], (groups, width): (usize, usize)) -> f32 {
        let (simd, sse) = (self.simd, self.simd.sse);
        let (stride, first) = (groups * width, self.group * width);
        let (step, margin, scale) =
            (sse._mm_set1_ps(self.step), sse._mm_set1_ps(self.margin), sse._mm_set1_ps(self.scale));
        let mut best = sse._mm_set1_ps(f32::NEG_INFINITY);
        for quad in 0..TILE / QUAD {
            let row = |i: usize| &items[(quad * QUAD + i) * stride..][..stride][first..][..width];
            let sums = simd.sse2._mm_cvtepi32_ps(self.sums([row(0), row(1), row(2), row(3)]));
            let scale_of = |i: usize| scales[quad * QUAD * groups..][..QUAD * groups][i * groups + self.group];
            // A score is rounded in the same way, and scales, as tables make them, are not negative: no order changes.
            let sums = simd.fma._mm_fmadd_ps(sums, step, margin);
            let scales = cast([scale_of(0), scale_of(1), scale_of(2), scale_of(3)]);
            best = sse._mm_max_ps(best, sse._mm_mul_ps(sse._mm_mul_ps(sums, scales), scale));
        }
        let best: [f32; QUAD] = cast(best);
        best.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }

    /// The sums of the products with each row.
    #[inline(always)]
    fn sums(&self, rows: [&[i8]; QUAD]) -> __m128i {
        let (sse2, width) = (self.simd.sse2, rows[0].len());
        let mut sums = [sse2._mm_setzero_si128(); QUAD];
        for (index, lap) in self.laps[..width / (LAP * BLOCK)].iter().enumerate() {
            for i in 0..QUAD {
                let lap_of_row = &rows[i][index * LAP * BLOCK..][..LAP * BLOCK];
                sums[i] = self.add_lap(sums[i], lap_of_row.as_chunks().0, None, lap);
            }
        }
        if !width.is_multiple_of(LAP * BLOCK) {
            for i in 0..QUAD {
                let rest = &rows[i][width / (LAP * BLOCK) * LAP * BLOCK..];
                let last = rows[i].last_chunk().filter(|_| !width.is_multiple_of(BLOCK));
                sums[i] = self.add_lap(sums[i], rest.as_chunks().0, last, &self.rest);
            }
        }
        let [a, b, c, d] = sums;
        let ab = sse2._mm_add_epi32(sse2._mm_unpacklo_epi32(a, b), sse2._mm_unpackhi_epi32(a, b));
        let cd = sse2._mm_add_epi32(sse2._mm_unpacklo_epi32(c, d), sse2._mm_unpackhi_epi32(c, d));
        sse2._mm_add_epi32(sse2._mm_unpacklo_epi64(ab, cd), sse2._mm_unpackhi_epi64(ab, cd))
    }

    /// Adds the products of blocks with the first numbers of a lap, and of the last block with its last, to the parts of a sum.
    #[inline(always)]
    fn add_lap(&self, sum: __m128i, blocks: &[[i8; BLOCK]], last: Option<&[i8; BLOCK]>, lap: &Lap) -> __m128i {
        let sse2 = self.simd.sse2;
        ask_for(blocks.as_ptr() as usize + AHEAD);
        let mut words = cast(lap.bias);
        for (block, weights) in blocks.iter().zip(&lap.weights) {
            words = self.add_block(words, block, weights);
        }
        if let Some(last) = last {
            words = self.add_block(words, last, &lap.weights[LAP - 1]);
        }
        sse2._mm_add_epi32(sum, sse2._mm_madd_epi16(words, sse2._mm_set1_epi16(1)))
    }

    #[inline(always)]
    fn add_block(&self, words: __m128i, block: &[i8; BLOCK], weights: &[i8; BLOCK]) -> __m128i {
        let (sse2, ssse3) = (self.simd.sse2, self.simd.ssse3);
        let plus_128 = sse2._mm_xor_si128(cast(*block), sse2._mm_set1_epi8(i8::MIN));
        sse2._mm_add_epi16(words, ssse3._mm_maddubs_epi16(plus_128, cast(*weights)))
    }
}

struct Passing<'a> {
    sieve: &'a IntegerSieve,
    table: &'a Table,
    values: &'a [i8],
    tiles: Range<usize>,
    floor: f32,
}

impl WithSimd for Passing<'_> {
    type Output = u32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> u32 {
        match (self.table.groups(), self.table.group_width()) {
            (1, 64) => self.passing::<64>(),
            (1, 128) => self.passing::<128>(),
            _ => self.passing::<0>(),
        }
    }
}

impl Passing<'_> {
    /// For items of a single vector of WIDTH columns, or of any width if it is 0: loops of known lengths are unrolled, and nothing is
    /// checked in them.
    #[inline(always)]
    fn passing<const WIDTH: usize>(self) -> u32 {
        let Passing { sieve, table, values, tiles, floor } = self;
        let (groups, width) = if WIDTH > 0 { (1, WIDTH) } else { (table.groups(), table.group_width()) };
        let mut passing = 0;
        for (bit, tile) in tiles.enumerate() {
            let items = &values[tile * TILE * groups * width..][..TILE * groups * width];
            let scales = &table.scales()[tile * TILE * groups..][..TILE * groups];
            let below = sieve.bound(items, scales, (groups, width)) < floor;
            passing |= u32::from(!below) << bit;
        }
        passing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::dot::int8_tile::Int8Tile;
    use crate::backend::cpu::simd::avx2;
    use crate::tables::{Dtype, Values};

    fn sieve(query: &[f32], table: &Table, group: usize) -> Option<IntegerSieve> {
        let simd = avx2()?;
        Some(IntegerSieve::new(simd, query, table, group..group + 1).expect("a sieve"))
    }

    fn passing(sieve: &IntegerSieve, table: &Table, tile: usize, floor: f32) -> bool {
        let Values::I8(values) = table.values() else { unreachable!("a table of integers") };
        let passing = sieve.passing(table, values.as_slice(), tile..tile + 1, floor);
        assert!(passing <= 1);
        passing == 1
    }

    /// The best score of a tile as scans find it.
    fn best(table: &Table, tile: usize, group: usize, query: &[f32]) -> f32 {
        let (mut items, mut scores) = (Int8Tile::default(), vec![0.0; TILE]);
        items.load(table, group..group + 1, TILE, |lane| tile * TILE + lane);
        items.score(&FixedRows::from_rows(query, query.len()), 1, None, &mut scores);
        scores.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }

    #[test]
    fn a_tile_passes_if_its_best_score_is_the_floor_and_not_if_that_is_far_below() {
        let waves = |n: usize, scale: f32| (0..n).map(|i| (i as f32 * scale).cos()).collect::<Vec<f32>>();
        let mut lost_without_margin = 0;
        for (groups, width) in [(1, 16), (1, 17), (1, 64), (3, 64), (2, 75), (1, 100), (1, 128), (1, 300), (1, 512)] {
            let mut table = Table::new(groups, width, Dtype::I8);
            table.append(&waves(3 * TILE * groups * width, 0.7));
            // Of all kinds, of one sign only, and with a number that is much larger than all others.
            let mut peak = waves(width, 0.3);
            peak[width / 2] = 40.0;
            for query in [waves(width, 0.3), vec![-1.0; width], peak, vec![0.0; width]] {
                for tile in 0..3 {
                    let Some(mut sieve) = sieve(&query, &table, groups - 1) else { return };
                    let best = best(&table, tile, groups - 1, &query);
                    assert!(passing(&sieve, &table, tile, best), "{groups}x{width}");
                    let largest = table.scales().iter().fold(0.0f32, |largest, scale| largest.max(*scale));
                    let far = best + 2.01 * sieve.margin * sieve.scale * largest;
                    assert!(far > best && !passing(&sieve, &table, tile, far), "{groups}x{width}: {best} {far}");
                    sieve.margin = 0.0;
                    lost_without_margin += usize::from(!passing(&sieve, &table, tile, best));
                }
            }
        }
        assert!(lost_without_margin > 10, "{lost_without_margin}");
    }

    #[test]
    fn the_largest_numbers_leave_no_range() {
        for (item, query) in [(1.0, 1.0), (-1.0, 1.0), (1.0, -1.0), (-1.0, -1.0)] {
            for width in [16, 64, 80, 512] {
                let mut table = Table::new(1, width, Dtype::I8);
                table.append(&vec![item; TILE * width]);
                let query = vec![query; width];
                let Some(sieve) = sieve(&query, &table, 0) else { return };
                let score = best(&table, 0, 0, &query);
                assert!((score - item * query[0] * width as f32).abs() < 1e-3 * width as f32);
                let most = score + 0.05 * score.abs();
                assert!(passing(&sieve, &table, 0, score) && !passing(&sieve, &table, 0, most), "{width}: {score}");
            }
        }
    }

    #[test]
    fn steps_that_are_too_small_are_found_out() {
        let lap = |weights: [[i16; BLOCK]; LAP], step: f32| Lap::of(&weights, step).is_some();
        let one = |a: i16, b: i16| {
            let mut weights = [[0; BLOCK]; LAP];
            weights[2][..2].copy_from_slice(&[a, b]);
            weights
        };
        assert!(lap(one(127, 1), 1.0) && !lap(one(128, 0), 1.0) && lap(one(128, 0), 2.0));
        assert!(lap(one(64, 64), 1.0) && !lap(one(64, 65), 1.0) && lap(one(-100, 100), 1.0), "two products");
        let all = |weight: i16| [[weight; BLOCK]; LAP];
        assert!(lap(all(31), 1.0) && !lap(all(32), 1.0), "a sum of eight products");
    }

    #[test]
    fn other_work_is_not_sieved() {
        let Some(simd) = avx2() else { return };
        let check = |groups: usize, width: usize| {
            let table = Table::new(groups, width, Dtype::I8);
            IntegerSieve::new(simd, &vec![1.0; groups * width], &table, 0..groups).is_some()
        };
        assert!(check(1, 16) && check(1, 512));
        assert!(!check(1, 15) && !check(1, 513) && !check(2, 16));
    }
}
