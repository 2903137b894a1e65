//! Inner products of few queries with a tile of items as they lie in memory.
//!
//! [`Lanes`](super::lanes::Lanes) pay when many queries share them. A single query takes longer to write and read them than to
//! multiply: here blocks of items are turned in registers and multiplied at once, so that the memory is read without a pause. The
//! sums are those of [`RowBlocks::multiply`](super::tile::RowBlocks::multiply) to the bit.

use std::hint::black_box;
use std::ops::Range;

use half::f16;
use pulp::x86::V3;
use pulp::{Arch, Simd, WithSimd, cast};

use super::tile::{ROWS, RowBlocks, Sink, TILE};
use super::transpose::{BLOCK, transpose};
use crate::tables::{Table, Values};

/// What a table may consist of.
trait Element: bytemuck::Pod {
    /// Eight values as floats.
    fn floats(simd: V3, values: [Self; BLOCK]) -> [f32; BLOCK];

    /// What to do long before `rows` are needed, where [`Ahead`](super::prefetch::Ahead) does not do it.
    #[inline(always)]
    fn read_ahead(_rows: &[&[Self]]) {}
}

impl Element for f32 {
    #[inline(always)]
    fn floats(_: V3, values: [f32; BLOCK]) -> [f32; BLOCK] {
        values
    }

    /// Reads a float of each cache line, one row after the other: an order that every prefetcher knows. There is so little to
    /// do with a float that memory sets the pace, and a processor prefetches more lines for itself than it can be asked for.
    #[inline(always)]
    fn read_ahead(rows: &[&[f32]]) {
        let mut bits = 0;
        for row in rows {
            row.chunks(16).for_each(|line| bits |= line[0].to_bits());
        }
        black_box(bits);
    }
}

impl Element for f16 {
    /// Exponent and fraction, moved to their places in an f32, stand for 2^-112 of the value, subnormal ones included.
    #[inline(always)]
    fn floats(simd: V3, values: [f16; BLOCK]) -> [f32; BLOCK] {
        const REBIASED: f32 = f32::from_bits((127 + 112) << 23);
        let V3 { avx, avx2, .. } = simd;
        let bits = avx2._mm256_cvtepu16_epi32(cast(values));
        let magnitude = avx2._mm256_slli_epi32::<13>(avx2._mm256_and_si256(bits, avx._mm256_set1_epi32(0x7fff)));
        let sign = avx2._mm256_slli_epi32::<16>(avx2._mm256_and_si256(bits, avx._mm256_set1_epi32(0x8000)));
        let magnitude = avx._mm256_mul_ps(cast(magnitude), avx._mm256_set1_ps(REBIASED));
        cast(avx._mm256_or_ps(magnitude, cast(sign)))
    }
}

/// Multiplies the vectors `groups` of the 1 to TILE items `items` with the queries, if these are at most [`ROWS`] and if the machine
/// and the format of the table allow it, and says whether it did.
pub fn few_rows(
    queries: &RowBlocks,
    table: &Table,
    groups: Range<usize>,
    items: Range<usize>,
    sink: &mut impl Sink<V3>,
) -> bool {
    let few = (1..=ROWS).contains(&queries.rows());
    let simd = match Arch::new() {
        Arch::V3(simd) if few => simd,
        Arch::V4(simd) if few => *simd,
        _ => return false,
    };
    let (width, group_width) = (table.width(), table.group_width());
    let rows = std::array::from_fn(|lane| {
        // Lanes beyond the last item repeat it; after the tile come the rows of the next.
        let row = (items.start + lane).min(if lane < TILE { items.end } else { table.rows() } - 1) * width;
        row + groups.start * group_width..row + groups.end * group_width
    });
    match table.values() {
        Values::F32(values) => Simd::vectorize(simd, FewRows { simd, queries, values: values.as_slice(), rows, sink }),
        Values::F16(values) => Simd::vectorize(simd, FewRows { simd, queries, values: values.as_slice(), rows, sink }),
        Values::I8(_) => return false,
    }
    true
}

struct FewRows<'a, T, K> {
    simd: V3,
    queries: &'a RowBlocks,
    values: &'a [T],
    rows: [Range<usize>; TILE + 2 * BLOCK],
    sink: &'a mut K,
}

impl<T: Element, K: Sink<V3>> WithSimd for FewRows<'_, T, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let FewRows { simd, queries, values, rows, sink } = self;
        let rows = rows.map(|row| &values[row]);
        match queries.rows() {
            1 => multiply_rows::<T, 1>(simd, queries, rows, sink),
            2 => multiply_rows::<T, 2>(simd, queries, rows, sink),
            _ => multiply_rows::<T, ROWS>(simd, queries, rows, sink),
        }
    }
}

type Register = <V3 as Simd>::f32s;

/// The sums of the first R queries.
#[inline(always)]
fn multiply_rows<T: Element, const R: usize>(
    simd: V3,
    queries: &RowBlocks,
    rows: [&[T]; TILE + 2 * BLOCK],
    sink: &mut impl Sink<V3>,
) {
    let weights = queries.block(0);
    sink.pauses(TILE / BLOCK / 2 * (rows[0].len() / BLOCK));
    for first in (0..TILE / BLOCK).step_by(2) {
        // Two blocks of items at a time: the sums of one hide the latency of the other's.
        let (both, next) = rows[first * BLOCK..][..4 * BLOCK].split_at(2 * BLOCK);
        let (a, b) = both.split_at(BLOCK);
        let mut sums = [[simd.splat_f32s(0.0); R]; 2];
        let width = a[0].len();
        let whole = width / BLOCK * BLOCK;
        let mut next = next.chunks((2 * BLOCK).div_ceil((whole / BLOCK).max(1)));
        for column in (0..whole).step_by(BLOCK) {
            sink.pause();
            if let Some(next) = next.next() {
                T::read_ahead(next);
            }
            let weights = &weights[column * ROWS..][..BLOCK * ROWS];
            add_block(simd, a, column, weights, &mut sums[0]);
            add_block(simd, b, column, weights, &mut sums[1]);
        }
        for column in whole..width {
            let weights = &weights[column * ROWS..][..ROWS];
            add_column(simd, a, column, weights, &mut sums[0]);
            add_column(simd, b, column, weights, &mut sums[1]);
        }
        let [a, b] = sums;
        for (row, (a, b)) in a.into_iter().zip(b).enumerate().take(queries.rows()) {
            sink.take(simd, row, first, [a, b]);
        }
    }
}

/// Adds the products of BLOCK columns.
#[inline(always)]
fn add_block<T: Element, const R: usize>(
    simd: V3,
    rows: &[&[T]],
    column: usize,
    weights: &[f32],
    sums: &mut [Register; R],
) {
    let mut block = [[0.0; BLOCK]; BLOCK];
    for i in 0..BLOCK {
        let mut values = [T::zeroed(); BLOCK];
        values.copy_from_slice(&rows[i][column..column + BLOCK]);
        block[i] = T::floats(simd, values);
    }
    let block = transpose(simd, block);
    for i in 0..BLOCK {
        add_products(simd, cast(block[i]), &weights[i * ROWS..][..ROWS], sums);
    }
}

/// Adds the products of one column.
#[inline(always)]
fn add_column<T: Element, const R: usize>(
    simd: V3,
    rows: &[&[T]],
    column: usize,
    weights: &[f32],
    sums: &mut [Register; R],
) {
    let mut lanes = [0.0; BLOCK];
    for (to, from) in lanes.iter_mut().zip(rows) {
        *to = T::floats(simd, [from[column]; BLOCK])[0];
    }
    add_products(simd, cast(lanes), weights, sums);
}

#[inline(always)]
fn add_products<const R: usize>(simd: V3, lanes: Register, weights: &[f32], sums: &mut [Register; R]) {
    for (sum, &weight) in sums.iter_mut().zip(weights) {
        *sum = simd.mul_add_e_f32s(simd.splat_f32s(weight), lanes, *sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::lanes::Lanes;
    use crate::tables::Dtype;

    /// Keeps the bits of all sums (B, TILE).
    struct Bits(Vec<[u32; TILE]>);

    impl<S: Simd> Sink<S> for Bits {
        #[inline(always)]
        fn take(&mut self, _: S, row: usize, first: usize, sums: [S::f32s; 2]) {
            let lanes = S::F32_LANES;
            for (half, sums) in sums.iter().enumerate() {
                let floats: &[f32] = bytemuck::cast_slice(std::slice::from_ref(sums));
                for (lane, float) in floats.iter().enumerate() {
                    self.0[row][(first + half) * lanes + lane] = float.to_bits();
                }
            }
        }
    }

    struct OfLanes<'a>(&'a RowBlocks, &'a [f32], &'a mut Bits);

    impl WithSimd for OfLanes<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            self.0.multiply(simd, self.1, self.2);
        }
    }

    /// Bits by this module, if this machine can, and by lanes.
    fn both(table: &Table, groups: Range<usize>, items: Range<usize>, queries: &RowBlocks) -> (Option<Bits>, Bits) {
        let empty = || Bits(vec![[0; TILE]; queries.rows()]);
        let (mut few, mut by_lanes, mut lanes) = (empty(), empty(), Lanes::default());
        let done = few_rows(queries, table, groups.clone(), items.clone(), &mut few);
        let tile = lanes.load(table, groups, items.len(), |lane| items.start + lane);
        Arch::new().dispatch(OfLanes(queries, tile, &mut by_lanes));
        (done.then_some(few), by_lanes)
    }

    #[test]
    fn sums_are_those_of_lanes_to_the_bit() {
        let can = !matches!(Arch::new(), Arch::Scalar);
        for dtype in [Dtype::F32, Dtype::F16] {
            for (groups, group_width) in [(1, 1), (3, 5), (2, 8), (1, 19), (1, 64)] {
                let width = groups * group_width;
                let mut table = Table::new(groups, group_width, dtype);
                // From ordinary numbers down to halves that are subnormal.
                let value = |i: usize| (i as f32 * 0.7).sin() * 10f32.powi(-(i as i32 % 8));
                table.append(&(0..70 * width).map(value).collect::<Vec<f32>>());
                for (range, items) in [(0..groups, 3..35), (groups - 1..groups, 64..70), (0..1, 69..70)] {
                    for rows in 1..=5 {
                        let width = range.len() * group_width;
                        let values: Vec<f32> = (0..rows * width).map(|i| (i as f32 * 1.3).cos()).collect();
                        let queries = RowBlocks::from_rows(&values, rows, width);
                        let (few, lanes) = both(&table, range.clone(), items.clone(), &queries);
                        assert_eq!(few.is_some(), can && rows <= ROWS);
                        let n = items.len();
                        for (few, lanes) in few.iter().flat_map(|few| &few.0).zip(&lanes.0) {
                            assert_eq!(few[..n], lanes[..n], "{dtype:?} {groups}x{group_width} {range:?} {rows}");
                            assert!(lanes[..n].iter().any(|&bits| bits != 0));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn other_tables_are_left_to_others() {
        let mut table = Table::new(1, 8, Dtype::I8);
        table.append(&[1.0; 64]);
        let queries = RowBlocks::from_rows(&[1.0; 8], 1, 8);
        assert!(!few_rows(&queries, &table, 0..1, 0..8, &mut Bits(vec![[0; TILE]])));
        assert!(!few_rows(&RowBlocks::from_rows(&[], 0, 8), &table, 0..1, 0..8, &mut Bits(Vec::new())));
    }
}
