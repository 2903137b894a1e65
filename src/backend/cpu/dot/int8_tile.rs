//! Inner products of quantized queries with a tile of 8-bit items. Sums of integers are exact, so their order does not matter, and the
//! GPU finds the same bits. Scales of queries are powers of two, so it does not matter either whether a compiler contracts
//! `integers * scale(x) * scale(q) + bias`.
//!
//! Each SIMD lane holds two columns of an item, widened to 16 bits, which one instruction multiplies and adds. Twin of
//! `shaders/scan/lib/dot_i8.wgsl`.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::micro_kernel::{ROWS, TILE};
use super::quantized::{BLOCK, QuantizedQueries};
use super::transform::Transform;
use crate::backend::cpu::simd::aligned::AlignedFloats;
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
use crate::backend::cpu::simd::transpose::Transpose;
use crate::backend::cpu::simd::{Portable, run_with_kernel};
use crate::tables::{Table, Values};

/// Items in one register.
pub const OCTET: usize = 8;

/// Octets of a tile.
const OCTETS: usize = TILE / OCTET;

/// Most pairs of columns whose products are summed in 32 bits: 512 * 32512 * 128 < 2^31. Sums of wider vectors are added as floats, in
/// order.
pub const MAX_PAIRS: usize = 256;

/// Two columns of an item or of a query.
type Pair = [i16; 2];

/// Two columns of the items of an octet.
type Octet = [Pair; OCTET];

/// A tile of 8-bit items. Scratch memory of one thread.
#[derive(Default)]
pub struct Int8Tile {
    /// (groups, pairs, OCTETS) of [`Octet`], each as many bytes as eight floats.
    values: AlignedFloats,
    /// (groups, TILE)
    scales: AlignedFloats,
    /// Pairs of columns of one vector.
    pairs: usize,
}

impl Int8Tile {
    /// Loads the vectors `groups` of the items `row_of(0..n)` of an 8-bit table, for 1 <= n <= TILE. Lanes beyond the last item
    /// repeat it.
    pub fn load(&mut self, table: &Table, groups: Range<usize>, n: usize, row_of: impl Fn(usize) -> usize) {
        let items = std::array::from_fn(|lane| row_of(lane.min(n - 1)));
        run_with_kernel!(kernel => Fill { kernel, table, groups, items, tile: self });
    }

    /// Writes the scores (B, TILE) of the tile: for each query the sum over its `per_query` rows, row m with vector m of the items;
    /// or, with a `transform` and the inverse norms (components, TILE) of the tile, all rows with the only vector.
    pub fn score(
        &self,
        queries: &QuantizedQueries,
        per_query: usize,
        transform: Option<(&Transform, &[f32])>,
        scores: &mut [f32],
    ) {
        let task = Task { tile: self, queries, per_query, transform, scores };
        run_with_kernel!(kernel => Score { kernel, task });
    }
}

struct Fill<'a, K> {
    kernel: K,
    table: &'a Table,
    groups: Range<usize>,
    items: [usize; TILE],
    tile: &'a mut Int8Tile,
}

impl<K: Kernel> WithSimd for Fill<'_, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Fill { kernel, table, groups, items, tile } = self;
        let Values::I8(values) = table.values() else { return };
        let (values, scales, width) = (values.as_slice(), table.scales(), table.group_width());
        let blocks = width.div_ceil(BLOCK);
        tile.pairs = blocks * BLOCK / 2;
        tile.values.resize(groups.len() * tile.pairs * TILE);
        tile.scales.resize(groups.len() * TILE);
        let out: &mut [Octet] = bytemuck::cast_slice_mut(&mut tile.values);
        for (vector, group) in groups.enumerate() {
            for (scale, item) in tile.scales[vector * TILE..].iter_mut().zip(items) {
                *scale = scales[item * table.groups() + group];
            }
            for octet in 0..OCTETS {
                let rows: [&[i8]; OCTET] = std::array::from_fn(|i| {
                    &values[(items[octet * OCTET + i] * table.groups() + group) * width..][..width]
                });
                for block in 0..blocks {
                    let first = block * BLOCK;
                    let mut columns = [[[0; 2]; OCTET]; BLOCK / 2];
                    for i in 0..OCTET {
                        // A whole block is copied by one instruction, since its length is constant.
                        columns[i] = match width - first < BLOCK {
                            false => widened(&rows[i][first..first + BLOCK]),
                            true => widened(&padded(&rows[i][first..])),
                        };
                    }
                    let first = (vector * tile.pairs + block * BLOCK / 2) * OCTETS + octet;
                    let transposed = kernel.transpose(columns);
                    for i in 0..BLOCK / 2 {
                        out[first + i * OCTETS] = transposed[i];
                    }
                }
            }
        }
    }
}

/// BLOCK columns, widened, as pairs.
#[inline(always)]
fn widened(columns: &[i8]) -> [Pair; BLOCK / 2] {
    let mut bytes = [0; BLOCK];
    bytes.copy_from_slice(columns);
    let mut words = [0i16; BLOCK];
    for i in 0..BLOCK {
        words[i] = bytes[i].into();
    }
    bytemuck::cast(words)
}

/// The last columns of a row, and zeros.
#[inline(never)]
fn padded(columns: &[i8]) -> [i8; BLOCK] {
    let mut padded = [0; BLOCK];
    padded[..columns.len()].copy_from_slice(columns);
    padded
}

/// The two inner loops, by one instruction set.
trait Kernel {
    /// The transpose of a block of pairs.
    fn transpose(&self, rows: [[Pair; OCTET]; BLOCK / 2]) -> [Octet; BLOCK / 2];

    /// The sums over at most [`MAX_PAIRS`] pairs of columns of the products of R queries with the items of the octets `first` and
    /// `first + 1`.
    fn sums<const R: usize>(
        &self,
        items: &[[Octet; OCTETS]],
        first: usize,
        queries: [&[Pair]; R],
    ) -> [[[i32; OCTET]; 2]; R];
}

impl Kernel for Portable {
    #[inline(always)]
    fn transpose(&self, rows: [[Pair; OCTET]; BLOCK / 2]) -> [Octet; BLOCK / 2] {
        std::array::from_fn(|column| std::array::from_fn(|row| rows[row][column]))
    }

    #[inline(always)]
    fn sums<const R: usize>(
        &self,
        items: &[[Octet; OCTETS]],
        first: usize,
        queries: [&[Pair]; R],
    ) -> [[[i32; OCTET]; 2]; R] {
        let mut sums = [[[0; OCTET]; 2]; R];
        for (pair, items) in items.iter().enumerate() {
            for (sums, query) in sums.iter_mut().zip(queries) {
                let [q, r] = query[pair].map(i32::from);
                for (sums, items) in sums.iter_mut().zip(&items[first..first + 2]) {
                    for (sum, &[x, y]) in sums.iter_mut().zip(items) {
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
    fn transpose(&self, rows: [[Pair; OCTET]; BLOCK / 2]) -> [Octet; BLOCK / 2] {
        // The transposition of floats only moves bits, so it serves pairs as well.
        pulp::cast(Transpose::transpose(self, pulp::cast(rows)))
    }

    #[inline(always)]
    fn sums<const R: usize>(
        &self,
        items: &[[Octet; OCTETS]],
        first: usize,
        queries: [&[Pair]; R],
    ) -> [[[i32; OCTET]; 2]; R] {
        let (avx, avx2) = (self.avx, self.avx2);
        let mut sums = [[avx._mm256_setzero_si256(); 2]; R];
        let queries = queries.map(|query| &query[..items.len()]);
        for (pair, items) in items.iter().enumerate() {
            let (a, b) = (pulp::cast(items[first]), pulp::cast(items[first + 1]));
            for r in 0..R {
                let query = avx._mm256_set1_epi32(pulp::cast(queries[r][pair]));
                sums[r][0] = avx2._mm256_add_epi32(sums[r][0], avx2._mm256_madd_epi16(a, query));
                sums[r][1] = avx2._mm256_add_epi32(sums[r][1], avx2._mm256_madd_epi16(b, query));
            }
        }
        let mut out = [[[0; OCTET]; 2]; R];
        for r in 0..R {
            out[r] = [pulp::cast(sums[r][0]), pulp::cast(sums[r][1])];
        }
        out
    }
}

struct Task<'a> {
    tile: &'a Int8Tile,
    queries: &'a QuantizedQueries,
    per_query: usize,
    transform: Option<(&'a Transform<'a>, &'a [f32])>,
    scores: &'a mut [f32],
}

struct Score<'a, K> {
    kernel: K,
    task: Task<'a>,
}

impl<K: Kernel> WithSimd for Score<'_, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) {
        let n_queries = self.task.queries.len() / self.task.per_query.max(1);
        for m in 0..self.task.per_query {
            for first in (0..n_queries).step_by(ROWS) {
                // A single query: the rows beyond it are not multiplied.
                match n_queries - first {
                    1 => score_rows::<K, 1>(&self.kernel, &mut self.task, m, first, 1),
                    n => score_rows::<K, ROWS>(&self.kernel, &mut self.task, m, first, n.min(ROWS)),
                }
            }
        }
    }
}

/// Adds the products of row m of the `n` <= R queries from `first_query` on to their scores. R rows are multiplied: the last one
/// repeatedly.
#[inline(always)]
fn score_rows<K: Kernel, const R: usize>(kernel: &K, task: &mut Task, m: usize, first_query: usize, n: usize) {
    let Task { tile, queries, per_query, transform, scores } = task;
    let vector = if transform.is_some() { 0 } else { m };
    let octets: &[[Octet; OCTETS]] = bytemuck::cast_slice(&tile.values);
    let octets = &octets[vector * tile.pairs..][..tile.pairs];
    let scales = &tile.scales[vector * TILE..][..TILE];
    let index_of = |r: usize| (first_query + r.min(n - 1)) * *per_query + m;
    let rows: [&[Pair]; R] = std::array::from_fn(|r| queries.row(index_of(r)).0.as_chunks().0);
    for first in (0..OCTETS).step_by(2) {
        let mut totals = [[[0.0; OCTET]; 2]; R];
        for part in (0..tile.pairs).step_by(MAX_PAIRS) {
            let end = tile.pairs.min(part + MAX_PAIRS);
            let sums = kernel.sums(&octets[part..end], first, rows.map(|row| &row[part..end]));
            for r in 0..R {
                for half in 0..2 {
                    for lane in 0..OCTET {
                        totals[r][half][lane] += sums[r][half][lane] as f32;
                    }
                }
            }
        }
        for (r, totals) in totals.iter().enumerate().take(n) {
            let (index, at) = (index_of(r), first * OCTET);
            let scale = queries.row(index).1;
            let mut products = [0.0; 2 * OCTET];
            for (product, (total, factor)) in products.iter_mut().zip(totals.as_flattened().iter().zip(&scales[at..])) {
                *product = total * factor * scale;
            }
            if let Some((transform, norms)) = transform {
                let norms = &norms[(transform.components.start + m) * TILE + at..];
                for (product, norm) in products.iter_mut().zip(norms) {
                    *product = (*product + transform.bias[index]) * norm;
                }
            }
            let scores = &mut scores[(first_query + r) * TILE + at..][..2 * OCTET];
            if m == 0 {
                scores.fill(0.0);
            }
            for (score, product) in scores.iter_mut().zip(products) {
                *score += product;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use pulp::Arch;

    use super::*;
    use crate::tables::Dtype;

    #[test]
    fn every_kernel_finds_the_same_bits() {
        for (groups, width) in [(1, 5), (3, 16), (2, 1100)] {
            let values = |n: usize, scale: f32| (0..n).map(|i| (i as f32 * scale).sin()).collect::<Vec<f32>>();
            let mut table = Table::new(groups, width, Dtype::I8);
            table.append(&values(40 * groups * width, 0.7));
            let queries = QuantizedQueries::from_rows(&values(3 * groups * width, 0.3), width);
            let (mut tile, mut portable) = (Int8Tile::default(), Int8Tile::default());
            tile.load(&table, 0..groups, 29, |lane| 39 - lane);
            let items = std::array::from_fn(|lane| 39 - lane.min(28));
            let tiles = &mut portable;
            Arch::new().dispatch(Fill { kernel: Portable, table: &table, groups: 0..groups, items, tile: tiles });
            let (mut expected, mut found) = (vec![0.0; 3 * TILE], vec![1.0; 3 * TILE]);
            let task =
                Task { tile: &portable, queries: &queries, per_query: groups, transform: None, scores: &mut expected };
            Arch::new().dispatch(Score { kernel: Portable, task });
            tile.score(&queries, groups, None, &mut found);
            assert!(expected[0] != 0.0 && expected[0] != expected[1]);
            assert_eq!(found, expected, "{groups} groups of {width}");
        }
    }
}
