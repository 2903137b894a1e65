//! Inner products of a small batch of quantized queries with 8-bit items.
//!
//! Four items are multiplied at a time, each with its sums in a register of its own. Sums of integers are the same in any order, so the
//! scores are those of [`Int8Tile`](crate::backend::cpu::dot::int8_tile::Int8Tile) to the bit.

#[cfg(target_arch = "x86")]
use std::arch::x86::__m128i;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::__m128i;
use std::ops::Range;

use pulp::x86::V3;
use pulp::{Simd, WithSimd, cast};

use super::quad::{QUAD, sum_lanes};
use crate::backend::cpu::dot::int8_tile::MAX_PAIRS;
use crate::backend::cpu::dot::micro_kernel::{ROWS, TILE};
use crate::backend::cpu::dot::quantized::{BLOCK, QuantizedQueries};
use crate::backend::cpu::simd::avx2;
use crate::backend::cpu::simd::prefetch::{CACHE_LINE, prefetch};
use crate::tables::{Table, Values};

/// Writes the scores (B, TILE) of the `items`, of which there are 1 to TILE, by the only vector of `groups`; and returns whether it did:
/// not if there are no queries or more than [`ROWS`], if the table is none of 8-bit items or of another width, or if the machine lacks
/// AVX2. Lanes beyond the last item hold unspecified numbers.
pub fn small_batch_i8(
    queries: &QuantizedQueries,
    table: &Table,
    groups: Range<usize>,
    items: Range<usize>,
    scores: &mut [f32],
) -> bool {
    let fits = (1..=ROWS).contains(&queries.len())
        && groups.len() == 1
        && (BLOCK..=2 * MAX_PAIRS).contains(&table.group_width());
    let (Some(simd), true) = (avx2(), fits) else { return false };
    let Values::I8(values) = table.values() else { return false };
    let values = values.as_slice();
    Simd::vectorize(simd, SmallBatchI8 { simd, queries, table, values, group: groups.start, items, scores });
    true
}

struct SmallBatchI8<'a> {
    simd: V3,
    queries: &'a QuantizedQueries,
    table: &'a Table,
    values: &'a [i8],
    group: usize,
    items: Range<usize>,
    scores: &'a mut [f32],
}

impl WithSimd for SmallBatchI8<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let SmallBatchI8 { simd, queries, table, values, group, items, scores } = self;
        let (all, width) = (table.width(), table.group_width());
        let values = &values[items.start * all..items.end * all];
        let scales = scales(table, group, items.clone());
        // Prefetches two tiles ahead: memory takes longer than one tile.
        let ahead = 2 * TILE * all;
        for (query, scores) in scores.as_chunks_mut::<TILE>().0.iter_mut().enumerate().take(queries.len()) {
            let weights = Weights::of(queries.row(query), width);
            let mut totals = [[0; QUAD]; TILE / QUAD];
            for (index, totals) in totals.iter_mut().enumerate().take(items.len().div_ceil(QUAD)) {
                let quad = &values[index * QUAD * all..];
                if query == 0 {
                    let next = quad.as_ptr() as usize + ahead + group * width;
                    // Items of a single vector lie side by side.
                    let (pieces, bytes) = if width == all { (1, QUAD * width) } else { (QUAD, width) };
                    for piece in 0..pieces {
                        for line in (0..bytes).step_by(CACHE_LINE) {
                            prefetch(next + piece * all + line);
                        }
                    }
                }
                let first = &quad[group * width..][..width];
                let row = |i: usize| {
                    let start = i * all + group * width;
                    quad.get(start..start + width).unwrap_or(first)
                };
                *totals = weights.sums(simd, &[first, row(1), row(2), row(3)]);
            }
            let totals: [i32; TILE] = cast(totals);
            for lane in 0..TILE {
                // Added to 0, as where an item has several vectors, so that no score is -0.
                scores[lane] = 0.0 + totals[lane] as f32 * scales[lane] * weights.scale;
            }
        }
    }
}

/// The scales of the vectors `group` of `items`, in lanes.
#[inline(always)]
fn scales(table: &Table, group: usize, items: Range<usize>) -> [f32; TILE] {
    let groups = table.groups();
    let of_items = &table.scales()[items.start * groups..];
    match (groups, of_items.first_chunk()) {
        (1, Some(scales)) => *scales,
        _ => {
            let mut scales = [0.0; TILE];
            for (lane, scale) in scales.iter_mut().enumerate().take(items.len()) {
                *scale = of_items[lane * groups + group];
            }
            scales
        }
    }
}

/// A query in blocks.
struct Weights<'a> {
    blocks: &'a [[i16; BLOCK]],
    /// For the last BLOCK columns of an item: zeros for columns that belong to a whole block.
    last: [i16; BLOCK],
    scale: f32,
}

impl Weights<'_> {
    /// Of the row of a query for items of `width` columns, BLOCK or more.
    fn of((row, scale): (&[i16], f32), width: usize) -> Weights<'_> {
        let (blocks, rest) = (&row.as_chunks().0[..width / BLOCK], width % BLOCK);
        let mut last = [0; BLOCK];
        for (last, weight) in last.iter_mut().rev().zip(row[width - rest..width].iter().rev()) {
            *last = *weight;
        }
        Weights { blocks, last, scale }
    }

    /// The sums of the products with each row.
    #[inline(always)]
    fn sums(&self, simd: V3, rows: &[&[i8]; QUAD]) -> [i32; QUAD] {
        let width = rows[0].len();
        let [a, b, c, d] = rows;
        let mut sums = [simd.sse2._mm_setzero_si128(); QUAD];
        let blocks = a.as_chunks().0.iter().zip(b.as_chunks().0).zip(c.as_chunks().0).zip(d.as_chunks().0);
        for ((((a, b), c), d), weights) in blocks.zip(self.blocks) {
            for (sum, block) in sums.iter_mut().zip([a, b, c, d]) {
                *sum = add_products(simd, *sum, block, weights);
            }
        }
        if !width.is_multiple_of(BLOCK) {
            for i in 0..QUAD {
                if let Some(block) = rows[i].last_chunk() {
                    sums[i] = add_products(simd, sums[i], block, &self.last);
                }
            }
        }
        cast(sum_lanes(simd, sums))
    }
}

/// Adds the products of a block to the four lanes of a sum. Registers have half the width of those of AVX2: that is faster on processors
/// that split wide ones, and no slower on others, which wait for memory.
#[inline(always)]
fn add_products(simd: V3, sum: __m128i, columns: &[i8; BLOCK], weights: &[i16; BLOCK]) -> __m128i {
    let (sse2, sse4_1) = (simd.sse2, simd.sse4_1);
    let halves: [[i8; BLOCK / 2]; 2] = cast(*columns);
    let weights: [__m128i; 2] = cast(*weights);
    let mut sum = sum;
    for (half, weights) in halves.into_iter().zip(weights) {
        let columns = sse4_1._mm_cvtepi8_epi16(cast([half, [0; BLOCK / 2]]));
        sum = sse2._mm_add_epi32(sum, sse2._mm_madd_epi16(columns, weights));
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::dot::int8_tile::Int8Tile;
    use crate::tables::Dtype;

    fn waves(n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * scale).cos()).collect()
    }

    #[test]
    fn scores_are_those_of_a_tile_to_the_bit() {
        let can = avx2().is_some();
        for (groups, width) in [(1, 16), (3, 21), (2, 16), (1, 64), (2, 100), (1, 512)] {
            let mut table = Table::new(groups, width, Dtype::I8);
            table.append(&waves(70 * groups * width, 0.7));
            for (group, items) in [(0, 3..35), (groups - 1, 64..70), (0, 69..70)] {
                for n in 1..=ROWS {
                    let queries = QuantizedQueries::from_rows(&waves(n * width, 0.3), width);
                    let (mut tile, mut expected) = (Int8Tile::default(), vec![0.0; n * TILE]);
                    tile.load(&table, group..group + 1, items.len(), |lane| items.start + lane);
                    tile.score(&queries, 1, None, &mut expected);
                    let mut found = vec![f32::NAN; n * TILE];
                    assert_eq!(small_batch_i8(&queries, &table, group..group + 1, items.clone(), &mut found), can);
                    for (found, expected) in found.chunks_exact(TILE).zip(expected.chunks_exact(TILE)).filter(|_| can) {
                        let bits =
                            |scores: &[f32]| scores[..items.len()].iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                        assert_eq!(bits(found), bits(expected), "{groups} x {width}, {items:?}, {n} queries");
                        assert!(expected[0] != 0.0);
                    }
                }
            }
        }
    }

    #[test]
    fn other_batches_and_tables_are_refused() {
        let check = |groups: usize, width: usize, dtype: Dtype, n: usize| {
            let mut table = Table::new(groups, width, dtype);
            table.append(&waves(8 * groups * width, 0.7));
            let queries = QuantizedQueries::from_rows(&waves(n * width, 0.3), width);
            small_batch_i8(&queries, &table, 0..groups, 0..8, &mut vec![0.0; n * TILE])
        };
        assert!(!check(1, 16, Dtype::F32, 1));
        assert!(!check(1, 16, Dtype::I8, ROWS + 1));
        assert!(!check(2, 16, Dtype::I8, 1));
        assert!(!check(1, 15, Dtype::I8, 1), "narrower than a block");
        assert!(!check(1, 513, Dtype::I8, 1), "sums of so many products leave 32 bits");
    }
}
