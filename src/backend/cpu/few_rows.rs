//! Inner products of few queries with a tile of items as they lie in memory.
//!
//! [`Lanes`](super::lanes::Lanes) pay when many queries share them. A single query takes longer to write and read them than to
//! multiply: here blocks of items are turned in registers and multiplied at once, so that the memory is read without a pause. The
//! sums are those of [`RowBlocks::multiply`](super::tile::RowBlocks::multiply) to the bit.

use std::ops::Range;

use half::f16;
use pulp::x86::V3;
use pulp::{Arch, Simd, WithSimd, cast};

use super::read_ahead::read_ahead;
use super::tile::{ROWS, RowBlocks, Sink, TILE};
use super::transpose::{BLOCK, transpose};
use crate::tables::{Table, Values};

/// What a table may consist of.
trait Element: bytemuck::Pod {
    /// Eight values as floats.
    fn floats(simd: V3, values: [Self; BLOCK]) -> [f32; BLOCK];
}

impl Element for f32 {
    #[inline(always)]
    fn floats(_: V3, values: [f32; BLOCK]) -> [f32; BLOCK] {
        values
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
    let simd = match Arch::new() {
        Arch::V3(simd) if queries.rows() <= ROWS => simd,
        Arch::V4(simd) if queries.rows() <= ROWS => *simd,
        _ => return false,
    };
    let (width, group_width) = (table.width(), table.group_width());
    let rows = std::array::from_fn(|lane| {
        // Lanes beyond the last item repeat it.
        let row = (items.start + lane).min(items.end - 1) * width;
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
    rows: [Range<usize>; TILE],
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
    rows: [&[T]; TILE],
    sink: &mut impl Sink<V3>,
) {
    let weights = queries.block(0);
    for first in (0..TILE / BLOCK).step_by(2) {
        // Two blocks of items at a time: the sums of one hide the latency of the other's.
        let both = &rows[first * BLOCK..][..2 * BLOCK];
        read_ahead(both);
        let (a, b) = both.split_at(BLOCK);
        let mut sums = [[simd.splat_f32s(0.0); R]; 2];
        let width = a[0].len();
        let whole = width / BLOCK * BLOCK;
        for column in (0..whole).step_by(BLOCK) {
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
