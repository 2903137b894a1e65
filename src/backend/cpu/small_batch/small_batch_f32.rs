//! Inner products of a small batch of queries with a tile of f32 or f16 items.
//!
//! Blocks of items are transposed in registers and multiplied at once, without a tile in memory in between. The sums are those of
//! [`RowBlocks::multiply`] to the bit.

use std::ops::Range;

use half::f16;
use pulp::x86::V3;
use pulp::{Simd, WithSimd, cast};

use crate::backend::cpu::dot::micro_kernel::{ROWS, RowBlocks, Sink, TILE};
use crate::backend::cpu::simd::avx2;
use crate::backend::cpu::simd::prefetch::{CACHE_LINE, prefetch};
use crate::backend::cpu::simd::transpose::{Rows, SIDE, Transpose, block};
use crate::backend::cpu::simd::widen::{RESCALE, widen_pairs_unscaled, widen_unscaled};
use crate::tables::{Table, Values};

type Register = <V3 as Simd>::f32s;

/// At most [`ROWS`] queries for a table of f32 or f16.
pub struct SmallBatchF32 {
    simd: V3,
    /// Times [`Element::SCALE`] of the table.
    queries: RowBlocks,
}

impl SmallBatchF32 {
    /// `queries` for `table`; `None` if there are none or too many of them, if they overflow when scaled, if the table has 8-bit items, or
    /// if the machine lacks AVX2.
    pub fn new(queries: &RowBlocks, table: &Table) -> Option<SmallBatchF32> {
        let scale = match table.values() {
            Values::F32(_) => f32::SCALE,
            Values::F16(_) => f16::SCALE,
            Values::I8(_) => return None,
        };
        let simd = avx2()?;
        let fits = (1..=ROWS).contains(&queries.rows());
        fits.then(|| queries.scaled(scale)).flatten().map(|queries| SmallBatchF32 { simd, queries })
    }

    /// Hands to `sink` the products of the queries with the vectors `groups` of the `items`, of which there are 1 to TILE. Lanes beyond
    /// the last item repeat it.
    pub fn multiply(&self, table: &Table, groups: Range<usize>, items: Range<usize>, sink: &mut impl Sink<V3>) {
        match table.values() {
            Values::F32(values) => self.multiply_elements(table, values.as_slice(), groups, items, sink),
            Values::F16(values) => self.multiply_elements::<f16>(table, values.as_slice(), groups, items, sink),
            Values::I8(_) => {}
        }
    }

    fn multiply_elements<E: Element>(
        &self,
        table: &Table,
        values: &[E],
        groups: Range<usize>,
        items: Range<usize>,
        sink: &mut impl Sink<V3>,
    ) {
        let SmallBatchF32 { simd, queries } = self;
        let (all, first) = (table.width(), groups.start * table.group_width());
        let width = groups.len() * table.group_width();
        let place = Place { stride: all, start: items.start * all + first, last: items.len() - 1, width };
        Simd::vectorize(*simd, Products { simd: *simd, queries, values, place, sink });
    }
}

/// Where the rows of a tile lie in a table.
struct Place {
    start: usize,
    stride: usize,
    width: usize,
    last: usize,
}

impl Place {
    /// The SIDE rows from `first` on; beyond the last one it is repeated.
    #[inline(always)]
    fn rows<'a, E>(&self, values: &'a [E], first: usize) -> [&'a [E]; SIDE] {
        let mut rows = [&[][..]; SIDE];
        for (i, row) in rows.iter_mut().enumerate() {
            *row = &values[self.start + (first + i).min(self.last) * self.stride..][..self.width];
        }
        rows
    }
}

/// A number format of tables.
trait Element: Copy + Default {
    /// Columns in each register of a transposed block.
    const PER_REGISTER: usize;
    /// What numbers in registers have to be multiplied by. The queries are, instead, once for a search.
    const SCALE: f32;

    /// The SIDE * PER_REGISTER columns from `column` on, as a block of floats.
    fn block(rows: &[&[Self]; SIDE], column: usize) -> Rows;

    /// The columns in a register of a transposed block.
    fn columns(simd: V3, register: [f32; SIDE]) -> [Register; 2];

    /// One column, in a register.
    fn column(simd: V3, numbers: [Self; SIDE]) -> Register;
}

impl Element for f32 {
    const PER_REGISTER: usize = 1;
    const SCALE: f32 = 1.0;

    #[inline(always)]
    fn block(rows: &[&[f32]; SIDE], column: usize) -> Rows {
        block(rows, column)
    }

    #[inline(always)]
    fn columns(_: V3, register: [f32; SIDE]) -> [Register; 2] {
        [cast(register); 2]
    }

    #[inline(always)]
    fn column(_: V3, numbers: [f32; SIDE]) -> Register {
        cast(numbers)
    }
}

/// Two numbers are transposed as if they were one float.
impl Element for f16 {
    const PER_REGISTER: usize = 2;
    const SCALE: f32 = RESCALE;

    #[inline(always)]
    fn block(rows: &[&[f16]; SIDE], column: usize) -> Rows {
        let mut block = [[[0.0; SIDE / 2]; 2]; SIDE];
        for i in 0..SIDE {
            let row = &rows[i][column..column + 2 * SIDE];
            block[i] = cast([bits(&row[..SIDE]), bits(&row[SIDE..])]);
        }
        block
    }

    #[inline(always)]
    fn columns(simd: V3, register: [f32; SIDE]) -> [Register; 2] {
        let [first, second] = widen_pairs_unscaled(simd, cast(register));
        [cast(first), cast(second)]
    }

    #[inline(always)]
    fn column(simd: V3, numbers: [f16; SIDE]) -> Register {
        cast(widen_unscaled(simd, numbers))
    }
}

#[inline(always)]
fn bits(numbers: &[f16]) -> [u16; SIDE] {
    let mut bits = [0; SIDE];
    bits.copy_from_slice(bytemuck::cast_slice(numbers));
    bits
}

struct Products<'a, E, K> {
    simd: V3,
    queries: &'a RowBlocks,
    values: &'a [E],
    place: Place,
    sink: &'a mut K,
}

impl<E: Element, K: Sink<V3>> WithSimd for Products<'_, E, K> {
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

impl<E: Element, K: Sink<V3>> Products<'_, E, K> {
    /// The sums of the first R queries.
    #[inline(always)]
    fn multiply<const R: usize>(self) {
        let Products { simd, queries, values, place, sink } = self;
        let (weights, width) = (queries.block(0), place.width);
        let columns = SIDE * E::PER_REGISTER;
        let whole = width / columns * columns;
        let prefetched_at_once = (2 * SIDE).div_ceil((whole / columns).max(1));
        for first in (0..TILE / SIDE).step_by(2) {
            // Two blocks of items at a time: the sums of one hide the latency of those of the other.
            let (a, b) = (place.rows(values, first * SIDE), place.rows(values, (first + 1) * SIDE));
            let mut sums = [[simd.splat_f32s(0.0); R]; 2];
            // Prefetches the rows of the next two blocks, one after the other, an order that hardware prefetchers recognise.
            let mut next = a[0].as_ptr() as usize + 2 * SIDE * place.stride * size_of::<E>();
            let end = next + 2 * SIDE * place.stride * size_of::<E>();
            for column in (0..whole).step_by(columns) {
                for _ in 0..prefetched_at_once {
                    if next < end {
                        for line in (0..width * size_of::<E>()).step_by(CACHE_LINE) {
                            prefetch(next + line);
                        }
                        next += place.stride * size_of::<E>();
                    }
                }
                let weights = &weights[column * ROWS..][..columns * ROWS];
                add_blocks(simd, [&a, &b], column, weights, &mut sums);
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

/// Adds the products of SIDE * PER_REGISTER columns of two blocks, alternating between them.
#[inline(always)]
fn add_blocks<E: Element, const R: usize>(
    simd: V3,
    [a, b]: [&[&[E]; SIDE]; 2],
    column: usize,
    weights: &[f32],
    sums: &mut [[Register; R]; 2],
) {
    let (a, b) = (simd.transpose(E::block(a, column)), simd.transpose(E::block(b, column)));
    for i in 0..SIDE {
        let (a, b) = (E::columns(simd, a[i]), E::columns(simd, b[i]));
        for place in 0..E::PER_REGISTER {
            let weights = &weights[(i * E::PER_REGISTER + place) * ROWS..][..ROWS];
            add_products(simd, a[place], weights, &mut sums[0]);
            add_products(simd, b[place], weights, &mut sums[1]);
        }
    }
}

/// Adds the products of one column of a block.
#[inline(always)]
fn add_column<E: Element, const R: usize>(
    simd: V3,
    rows: &[&[E]; SIDE],
    column: usize,
    weights: &[f32],
    sums: &mut [Register; R],
) {
    let mut numbers = [E::default(); SIDE];
    for (number, row) in numbers.iter_mut().zip(rows) {
        *number = row[column];
    }
    add_products(simd, E::column(simd, numbers), weights, sums);
}

#[inline(always)]
fn add_products<const R: usize>(simd: V3, lanes: Register, weights: &[f32], sums: &mut [Register; R]) {
    for (sum, &weight) in sums.iter_mut().zip(weights) {
        *sum = simd.mul_add_e_f32s(simd.splat_f32s(weight), lanes, *sum);
    }
}

#[cfg(test)]
mod tests {
    use pulp::Arch;

    use super::*;
    use crate::backend::cpu::dot::item_tile::ItemTile;
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

    struct TileProducts<'a>(&'a RowBlocks, &'a [f32], &'a mut Bits);

    impl WithSimd for TileProducts<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            self.0.multiply(simd, self.1, self.2);
        }
    }

    /// Bits of the sums by this module, if this machine has AVX2, and by a tile in lanes.
    fn both(table: &Table, groups: Range<usize>, items: Range<usize>, queries: &RowBlocks) -> (Option<Bits>, Bits) {
        let empty = || Bits(vec![[0; TILE]; queries.rows()]);
        let (mut small_batch, mut by_lanes, mut item_tile) = (empty(), empty(), ItemTile::default());
        let done = SmallBatchF32::new(queries, table)
            .map(|rows| rows.multiply(table, groups.clone(), items.clone(), &mut small_batch));
        let tile = item_tile.load(table, groups, items.len(), |lane| items.start + lane);
        Arch::new().dispatch(TileProducts(queries, tile, &mut by_lanes));
        (done.map(|()| small_batch), by_lanes)
    }

    #[test]
    fn sums_are_those_of_lanes_to_the_bit() {
        let can = avx2().is_some();
        for dtype in [Dtype::F32, Dtype::F16] {
            for (groups, group_width) in [(1, 1), (3, 5), (2, 8), (1, 19), (2, 25), (1, 64)] {
                let width = groups * group_width;
                let mut table = Table::new(groups, group_width, dtype);
                // From ordinary numbers down to subnormal ones of f16.
                let value = |i: usize| (i as f32 * 0.7).sin() * 10f32.powi(-(i as i32 % 8));
                table.append(&(0..70 * width).map(value).collect::<Vec<f32>>());
                for (range, items) in [(0..groups, 3..35), (groups - 1..groups, 64..70), (0..1, 69..70)] {
                    for rows in 1..=5 {
                        let width = range.len() * group_width;
                        let values: Vec<f32> = (0..rows * width).map(|i| (i as f32 * 1.3).cos()).collect();
                        let queries = RowBlocks::from_rows(&values, rows, width);
                        let (small_batch, lanes) = both(&table, range.clone(), items.clone(), &queries);
                        assert_eq!(small_batch.is_some(), can && rows <= ROWS);
                        let n = items.len();
                        for (sums, lanes) in small_batch.iter().flat_map(|bits| &bits.0).zip(&lanes.0) {
                            assert_eq!(sums[..n], lanes[..n], "{dtype:?} {groups}x{group_width} {range:?} {rows}");
                            assert!(lanes[..n].iter().any(|&bits| bits != 0));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn other_batches_and_tables_are_refused() {
        let check = |dtype: Dtype, rows: usize, weight: f32| {
            let mut table = Table::new(1, 8, dtype);
            table.append(&[1.0; 64]);
            SmallBatchF32::new(&RowBlocks::from_rows(&vec![weight; 8 * rows], rows, 8), &table).is_some()
        };
        let can = avx2().is_some();
        assert_eq!(
            [check(Dtype::F32, 4, 1.0), check(Dtype::F16, 1, -65535.0), check(Dtype::F32, 1, 65536.0)],
            [can; 3]
        );
        assert!(!check(Dtype::F32, 0, 1.0) && !check(Dtype::F32, 5, 1.0));
        assert!(!check(Dtype::F16, 1, -65536.0), "weights that would be infinite");
        assert!(!check(Dtype::I8, 1, 1.0));
    }
}
