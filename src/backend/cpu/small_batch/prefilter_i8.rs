//! The prefilter for 8-bit tables: the query is rounded to 8 bits, so that two products fit in a sum of 16 bits.

#[cfg(target_arch = "x86")]
use std::arch::x86::__m128i;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::__m128i;
use std::ops::Range;

use pulp::x86::V3;
use pulp::{Simd, WithSimd, cast};

use super::quad::{QUAD, sum_lanes};
use crate::backend::cpu::dot::int8_tile::MAX_PAIRS;
use crate::backend::cpu::dot::micro_kernel::TILE;
use crate::backend::cpu::dot::quantized::{BLOCK, QuantizedQueries};
use crate::backend::cpu::simd::prefetch::prefetch;
use crate::tables::Table;

/// Bytes between what is multiplied and what is prefetched: memory takes longer than a tile.
const PREFETCH_DISTANCE: usize = 1024;

/// Blocks of columns whose products are summed in 16 bits.
const CHUNK: usize = 4;

/// Largest magnitude of a number of an item.
const LARGEST: i32 = 128;

/// A query in multiples of `step`: the least step, nearly, for which sums over CHUNK blocks of columns stay in 16 bits.
pub struct Int8Prefilter {
    simd: V3,
    group: usize,
    chunks: Vec<Chunk>,
    /// The blocks beyond whole chunks, and in the last place the last BLOCK columns, with zeros for columns that belong to a whole block.
    rest: Chunk,
    /// In units of the quantized query.
    step: f32,
    /// A bound of what rounding to steps may take away from the sum of products of integers.
    margin: f32,
    /// Of the quantized query.
    scale: f32,
}

/// The numbers of a query for CHUNK blocks of columns.
#[derive(Clone, Default)]
struct Chunk {
    weights: [[i8; BLOCK]; CHUNK],
    /// What sums begin with: it makes up for the 128 that is added to each number of an item, to make it unsigned.
    bias: [i16; BLOCK / 2],
}

impl Chunk {
    /// `weights` in multiples of `step`; `None` if sums could leave 16 bits.
    fn of(weights: &[[i16; BLOCK]; CHUNK], step: f32) -> Option<Chunk> {
        let mut chunk = Chunk::default();
        for lane in 0..BLOCK / 2 {
            let (mut sum, mut magnitudes) = (0, 0);
            for (weights, steps) in weights.iter().zip(&mut chunk.weights) {
                let mut pair = [0; 2];
                for i in 0..2 {
                    let rounded = (f32::from(weights[2 * lane + i]) / step).round();
                    steps[2 * lane + i] = rounded as i8;
                    pair[i] = rounded as i32;
                }
                let [a, b] = pair;
                // Numbers have to fit in 8 bits and, with items from 0 to 255, two products in 16.
                let (most, least) = (a.max(0) + b.max(0), a.min(0) + b.min(0));
                if a.abs() > 127 || b.abs() > 127 || most.max(-least) * 255 > i32::from(i16::MAX) {
                    return None;
                }
                sum += a + b;
                magnitudes += a.abs() + b.abs();
            }
            // Sums wrap on the way, which is harmless if the end fits.
            if magnitudes * LARGEST > i32::from(i16::MAX) {
                return None;
            }
            chunk.bias[lane] = (-LARGEST * sum) as i16;
        }
        Some(chunk)
    }
}

impl Int8Prefilter {
    /// For a query of as many finite `values` as the `groups` of an item of `table` have. `None` unless that is a single group, of BLOCK to
    /// 512 columns.
    pub fn new(simd: V3, values: &[f32], table: &Table, groups: Range<usize>) -> Option<Int8Prefilter> {
        let width = table.group_width();
        if groups.len() != 1 || !(BLOCK..=2 * MAX_PAIRS).contains(&width) {
            return None;
        }
        let queries = QuantizedQueries::from_rows(values, width);
        let (row, scale) = queries.row(0);
        let row = &row[..width];
        let (blocks, beyond) = row.as_chunks::<BLOCK>();
        let (chunks, blocks) = blocks.as_chunks::<CHUNK>();
        let mut rest = [[0; BLOCK]; CHUNK];
        rest[..blocks.len()].copy_from_slice(blocks);
        rest[CHUNK - 1][BLOCK - beyond.len()..].copy_from_slice(beyond);
        // From the least step for which numbers fit in 8 bits upwards, to one for which sums fit in 16.
        let largest = row.iter().map(|value| value.unsigned_abs()).max().unwrap_or(0);
        let mut step = f32::from(largest.max(1)) / 127.0;
        let (chunks, rest) = loop {
            let chunks: Option<Vec<Chunk>> = chunks.iter().map(|weights| Chunk::of(weights, step)).collect();
            match (chunks, Chunk::of(&rest, step)) {
                (Some(chunks), Some(rest)) => break (chunks, rest),
                _ => step *= 1.04,
            }
        };
        let off = |value: &i16| {
            let value = f32::from(*value);
            f64::from((value - (value / step).round() * step).abs())
        };
        let (off, sum): (f64, f64) = (row.iter().map(off).sum(), row.iter().map(|value| f64::from(value.abs())).sum());
        // The second term covers the roundings of floats, each 2^-24 of the largest sum.
        let margin = (f64::from(LARGEST) * (off + sum * 2f64.powi(-20)) + 1.0) as f32;
        Some(Int8Prefilter { simd, group: groups.start, chunks, rest, step, margin, scale })
    }

    /// As [`Prefilter::passing`](super::prefilter::Prefilter::passing), for the `values` of the table.
    pub fn passing(&self, table: &Table, values: &[i8], tiles: Range<usize>, threshold: f32) -> u32 {
        Simd::vectorize(self.simd, Passing { prefilter: self, table, values, tiles, threshold })
    }

    /// An upper bound of the scores of a tile.
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
            // Scores go through the same roundings, which are monotonic; scales of tables are not negative.
            let sums = simd.fma._mm_fmadd_ps(sums, step, margin);
            let scales = cast([scale_of(0), scale_of(1), scale_of(2), scale_of(3)]);
            best = sse._mm_max_ps(best, sse._mm_mul_ps(sse._mm_mul_ps(sums, scales), scale));
        }
        let best: [f32; QUAD] = cast(best);
        best.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }

    /// The sums of products with each of four items.
    #[inline(always)]
    fn sums(&self, rows: [&[i8]; QUAD]) -> __m128i {
        let width = rows[0].len();
        let mut sums = [self.simd.sse2._mm_setzero_si128(); QUAD];
        for (index, chunk) in self.chunks[..width / (CHUNK * BLOCK)].iter().enumerate() {
            for i in 0..QUAD {
                let chunk_of_row = &rows[i][index * CHUNK * BLOCK..][..CHUNK * BLOCK];
                sums[i] = self.add_chunk(sums[i], chunk_of_row.as_chunks().0, None, chunk);
            }
        }
        if !width.is_multiple_of(CHUNK * BLOCK) {
            for i in 0..QUAD {
                let rest = &rows[i][width / (CHUNK * BLOCK) * CHUNK * BLOCK..];
                let last = rows[i].last_chunk().filter(|_| !width.is_multiple_of(BLOCK));
                sums[i] = self.add_chunk(sums[i], rest.as_chunks().0, last, &self.rest);
            }
        }
        sum_lanes(self.simd, sums)
    }

    /// Adds to the lanes of a sum the products of `blocks` with the first blocks of a chunk, and of `last` with its last block.
    #[inline(always)]
    fn add_chunk(&self, sum: __m128i, blocks: &[[i8; BLOCK]], last: Option<&[i8; BLOCK]>, chunk: &Chunk) -> __m128i {
        let sse2 = self.simd.sse2;
        prefetch(blocks.as_ptr() as usize + PREFETCH_DISTANCE);
        let mut words = cast(chunk.bias);
        for (block, weights) in blocks.iter().zip(&chunk.weights) {
            words = self.add_block(words, block, weights);
        }
        if let Some(last) = last {
            words = self.add_block(words, last, &chunk.weights[CHUNK - 1]);
        }
        sse2._mm_add_epi32(sum, sse2._mm_madd_epi16(words, sse2._mm_set1_epi16(1)))
    }

    #[inline(always)]
    fn add_block(&self, words: __m128i, block: &[i8; BLOCK], weights: &[i8; BLOCK]) -> __m128i {
        let (sse2, ssse3) = (self.simd.sse2, self.simd.ssse3);
        let unsigned = sse2._mm_xor_si128(cast(*block), sse2._mm_set1_epi8(i8::MIN));
        sse2._mm_add_epi16(words, ssse3._mm_maddubs_epi16(unsigned, cast(*weights)))
    }
}

struct Passing<'a> {
    prefilter: &'a Int8Prefilter,
    table: &'a Table,
    values: &'a [i8],
    tiles: Range<usize>,
    threshold: f32,
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
    /// For items of a single vector of WIDTH columns, or any items if WIDTH is 0. Loops of constant length are unrolled and need no
    /// bounds checks.
    #[inline(always)]
    fn passing<const WIDTH: usize>(self) -> u32 {
        let Passing { prefilter, table, values, tiles, threshold } = self;
        let (groups, width) = if WIDTH > 0 { (1, WIDTH) } else { (table.groups(), table.group_width()) };
        let mut passing = 0;
        for (bit, tile) in tiles.enumerate() {
            let items = &values[tile * TILE * groups * width..][..TILE * groups * width];
            let scales = &table.scales()[tile * TILE * groups..][..TILE * groups];
            let below = prefilter.bound(items, scales, (groups, width)) < threshold;
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

    fn prefilter(query: &[f32], table: &Table, group: usize) -> Option<Int8Prefilter> {
        let simd = avx2()?;
        Some(Int8Prefilter::new(simd, query, table, group..group + 1).expect("a query that suits it"))
    }

    fn passing(prefilter: &Int8Prefilter, table: &Table, tile: usize, threshold: f32) -> bool {
        let Values::I8(values) = table.values() else { unreachable!("a table of integers") };
        let passing = prefilter.passing(table, values.as_slice(), tile..tile + 1, threshold);
        assert!(passing <= 1);
        passing == 1
    }

    /// The best score of a tile, by the kernel of scans.
    fn best(table: &Table, tile: usize, group: usize, query: &[f32]) -> f32 {
        let (mut items, mut scores) = (Int8Tile::default(), vec![0.0; TILE]);
        items.load(table, group..group + 1, TILE, |lane| tile * TILE + lane);
        items.score(&QuantizedQueries::from_rows(query, query.len()), 1, None, &mut scores);
        scores.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }

    #[test]
    fn tiles_pass_at_their_best_score_and_not_far_above_it() {
        let waves = |n: usize, scale: f32| (0..n).map(|i| (i as f32 * scale).cos()).collect::<Vec<f32>>();
        let mut lost_without_margin = 0;
        for (groups, width) in [(1, 16), (1, 17), (1, 64), (3, 64), (2, 75), (1, 100), (1, 128), (1, 300), (1, 512)] {
            let mut table = Table::new(groups, width, Dtype::I8);
            table.append(&waves(3 * TILE * groups * width, 0.7));
            // Queries: mixed, of one sign, zero, and with one number that is much larger than the others.
            let mut peak = waves(width, 0.3);
            peak[width / 2] = 40.0;
            for query in [waves(width, 0.3), vec![-1.0; width], peak, vec![0.0; width]] {
                for tile in 0..3 {
                    let Some(mut prefilter) = prefilter(&query, &table, groups - 1) else { return };
                    let best = best(&table, tile, groups - 1, &query);
                    assert!(passing(&prefilter, &table, tile, best), "{groups}x{width}");
                    let largest = table.scales().iter().fold(0.0f32, |largest, scale| largest.max(*scale));
                    let far = best + 2.01 * prefilter.margin * prefilter.scale * largest;
                    assert!(far > best && !passing(&prefilter, &table, tile, far), "{groups}x{width}: {best} {far}");
                    prefilter.margin = 0.0;
                    lost_without_margin += usize::from(!passing(&prefilter, &table, tile, best));
                }
            }
        }
        assert!(lost_without_margin > 10, "{lost_without_margin}");
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        for (item, query) in [(1.0, 1.0), (-1.0, 1.0), (1.0, -1.0), (-1.0, -1.0)] {
            for width in [16, 64, 80, 512] {
                let mut table = Table::new(1, width, Dtype::I8);
                table.append(&vec![item; TILE * width]);
                let query = vec![query; width];
                let Some(prefilter) = prefilter(&query, &table, 0) else { return };
                let score = best(&table, 0, 0, &query);
                assert!((score - item * query[0] * width as f32).abs() < 1e-3 * width as f32);
                let most = score + 0.05 * score.abs();
                assert!(
                    passing(&prefilter, &table, 0, score) && !passing(&prefilter, &table, 0, most),
                    "{width}: {score}"
                );
            }
        }
    }

    #[test]
    fn steps_that_are_too_small_are_refused() {
        let chunk = |weights: [[i16; BLOCK]; CHUNK], step: f32| Chunk::of(&weights, step).is_some();
        let one = |a: i16, b: i16| {
            let mut weights = [[0; BLOCK]; CHUNK];
            weights[2][..2].copy_from_slice(&[a, b]);
            weights
        };
        assert!(chunk(one(127, 1), 1.0) && !chunk(one(128, 0), 1.0) && chunk(one(128, 0), 2.0));
        assert!(chunk(one(64, 64), 1.0) && !chunk(one(64, 65), 1.0) && chunk(one(-100, 100), 1.0), "two products");
        let all = |weight: i16| [[weight; BLOCK]; CHUNK];
        assert!(chunk(all(31), 1.0) && !chunk(all(32), 1.0), "a sum of eight products");
    }

    #[test]
    fn other_shapes_are_refused() {
        let Some(simd) = avx2() else { return };
        let check = |groups: usize, width: usize| {
            let table = Table::new(groups, width, Dtype::I8);
            Int8Prefilter::new(simd, &vec![1.0; groups * width], &table, 0..groups).is_some()
        };
        assert!(check(1, 16) && check(1, 512));
        assert!(!check(1, 15) && !check(1, 513) && !check(2, 16));
    }
}
