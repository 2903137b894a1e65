//! Inner products of few queries with a tile of items as they lie in memory.
//!
//! [`Lanes`](super::lanes::Lanes) pay when many queries share them. A single query takes longer to write and read them than to
//! multiply: here blocks of items are turned in registers and multiplied at once, so that the memory is read without a pause. The
//! sums are those of [`RowBlocks::multiply`](super::tile::RowBlocks::multiply) to the bit.

use std::ops::Range;

use half::f16;
use pulp::x86::V3;
use pulp::{Arch, Simd, WithSimd, cast};

use super::aligned::AlignedFloats;
use super::halves::Widen;
use super::prefetch::ask_for;
use super::tile::{ROWS, RowBlocks, Sink, TILE};
use super::transpose::{BLOCK, Transpose, block};
use crate::tables::{Table, Values};

/// Floats, and halves, of a cache line.
const LINE: usize = 16;
const LINE_OF_HALVES: usize = 32;

/// Multiplies the vectors `groups` of the 1 to TILE items `items` with the queries, if these are at most [`ROWS`] and if the machine
/// and the format of the table allow it, and says whether it did. `floats` is memory for halves that became floats.
pub fn few_rows(
    queries: &RowBlocks,
    table: &Table,
    groups: Range<usize>,
    items: Range<usize>,
    floats: &mut AlignedFloats,
    sink: &mut impl Sink<V3>,
) -> bool {
    let few = (1..=ROWS).contains(&queries.rows());
    let simd = match Arch::new() {
        Arch::V3(simd) if few => simd,
        Arch::V4(simd) if few => *simd,
        _ => return false,
    };
    let (all, first) = (table.width(), groups.start * table.group_width());
    let width = groups.len() * table.group_width();
    // Lanes beyond the last item repeat it.
    let row_of = |lane: usize| (items.start + lane).min(items.end - 1) * all + first;
    match table.values() {
        Values::F32(values) => {
            let mut rows = [&[][..]; TILE];
            for (lane, row) in rows.iter_mut().enumerate() {
                *row = &values.as_slice()[row_of(lane)..][..width];
            }
            Simd::vectorize(simd, FewRows { simd, queries, rows, ahead: 2 * BLOCK * all * size_of::<f32>(), sink });
        }
        Values::F16(values) => {
            let mut halves = [&[][..]; TILE];
            for (lane, row) in halves.iter_mut().enumerate() {
                *row = &values.as_slice()[row_of(lane)..][..width];
            }
            floats.resize(TILE * width);
            Simd::vectorize(simd, Halves { simd, halves, ahead: TILE * all * size_of::<f16>(), floats });
            let mut rows = [&[][..]; TILE];
            for (lane, row) in rows.iter_mut().enumerate() {
                *row = &floats[lane * width..][..width];
            }
            Simd::vectorize(simd, FewRows { simd, queries, rows, ahead: 0, sink });
        }
        Values::I8(_) => return false,
    }
    true
}

/// Halves that become floats.
struct Halves<'a> {
    simd: V3,
    halves: [&'a [f16]; TILE],
    /// Bytes to what will be needed soon.
    ahead: usize,
    /// (TILE, width)
    floats: &'a mut [f32],
}

impl WithSimd for Halves<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Halves { simd, halves, ahead, floats } = self;
        for (row, floats) in halves.iter().zip(floats.chunks_exact_mut(halves[0].len().max(1))) {
            for line in row.chunks(LINE_OF_HALVES) {
                ask_for(line.as_ptr() as usize + ahead);
            }
            simd.widen(row, floats);
        }
    }
}

struct FewRows<'a, K> {
    simd: V3,
    queries: &'a RowBlocks,
    rows: [&'a [f32]; TILE],
    /// Bytes to what will be needed soon; 0: nothing.
    ahead: usize,
    sink: &'a mut K,
}

impl<K: Sink<V3>> WithSimd for FewRows<'_, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        match self.queries.rows() {
            1 => self.multiply::<1>(),
            2 => self.multiply::<2>(),
            _ => self.multiply::<ROWS>(),
        }
    }
}

type Register = <V3 as Simd>::f32s;

impl<K: Sink<V3>> FewRows<'_, K> {
    /// The sums of the first R queries.
    #[inline(always)]
    fn multiply<const R: usize>(self) {
        let FewRows { simd, queries, rows, ahead, sink } = self;
        let (weights, width) = (queries.block(0), rows[0].len());
        let whole = width / BLOCK * BLOCK;
        for first in (0..TILE / BLOCK).step_by(2) {
            // Two blocks of items at a time: the sums of one hide the latency of the other's. Rows of one width, so that one
            // comparison says where all of them end.
            let (mut a, mut b) = ([&[][..]; BLOCK], [&[][..]; BLOCK]);
            for i in 0..BLOCK {
                (a[i], b[i]) = (&rows[first * BLOCK + i][..width], &rows[(first + 1) * BLOCK + i][..width]);
            }
            let mut sums = [[simd.splat_f32s(0.0); R]; 2];
            let mut soon = rows[first * BLOCK..][..2 * BLOCK].chunks((2 * BLOCK).div_ceil((whole / BLOCK).max(1)));
            for column in (0..whole).step_by(BLOCK) {
                if ahead > 0 {
                    // One row after the other, which is an order that prefetchers know.
                    for line in soon.next().unwrap_or_default().iter().flat_map(|row| row.chunks(LINE)) {
                        ask_for(line.as_ptr() as usize + ahead);
                    }
                }
                let weights = &weights[column * ROWS..][..BLOCK * ROWS];
                add_block(simd, &a, column, weights, &mut sums[0]);
                add_block(simd, &b, column, weights, &mut sums[1]);
            }
            for column in whole..width {
                let weights = &weights[column * ROWS..][..ROWS];
                add_column(simd, &a, column, weights, &mut sums[0]);
                add_column(simd, &b, column, weights, &mut sums[1]);
            }
            let [a, b] = sums;
            for (row, (a, b)) in a.into_iter().zip(b).enumerate().take(queries.rows()) {
                sink.take(simd, row, first, [a, b]);
            }
        }
    }
}

/// Adds the products of BLOCK columns.
#[inline(always)]
fn add_block<const R: usize>(
    simd: V3,
    rows: &[&[f32]; BLOCK],
    column: usize,
    weights: &[f32],
    sums: &mut [Register; R],
) {
    let columns = simd.transpose(block(rows, column));
    for i in 0..BLOCK {
        add_products(simd, cast(columns[i]), &weights[i * ROWS..][..ROWS], sums);
    }
}

/// Adds the products of one column.
#[inline(always)]
fn add_column<const R: usize>(
    simd: V3,
    rows: &[&[f32]; BLOCK],
    column: usize,
    weights: &[f32],
    sums: &mut [Register; R],
) {
    let mut lanes = [0.0; BLOCK];
    for (to, from) in lanes.iter_mut().zip(rows) {
        *to = from[column];
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
        let mut floats = AlignedFloats::default();
        let done = few_rows(queries, table, groups.clone(), items.clone(), &mut floats, &mut few);
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
        let (mut floats, none) = (AlignedFloats::default(), RowBlocks::from_rows(&[], 0, 8));
        assert!(!few_rows(&queries, &table, 0..1, 0..8, &mut floats, &mut Bits(vec![[0; TILE]])));
        assert!(!few_rows(&none, &table, 0..1, 0..8, &mut floats, &mut Bits(Vec::new())));
    }
}
