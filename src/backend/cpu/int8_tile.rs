//! Inner products of fixed-point queries with a tile of 8-bit items, in integers: exact, so no order of summation shows, and
//! the GPU finds the same bits. Scales of queries are powers of two, so contracting `integers * scale(x) * scale(q) + bias`
//! would change nothing.
//!
//! The items of a tile stay rows; they are widened to 16 bits once for all queries, and each query is multiplied with eight
//! of them at a time. Twin of `shaders/lib/dot_i8.wgsl`.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::dot_scan::Transform;
use super::fixed_rows::{BLOCK, FixedRows};
use super::tile::TILE;
use crate::tables::{Table, Values};

/// Items that are multiplied at a time.
const OCTET: usize = 8;

/// Integers of a vector whose sum cannot leave 32 bits: 512 * 32512 * 128 < 2^31. Sums of wider vectors are added as floats,
/// in order.
const PART: usize = 512;

type Block = [i16; BLOCK];

/// A tile of 8-bit items: memory of one thread.
#[derive(Default)]
pub struct Int8Tile {
    /// (groups, TILE / OCTET, blocks, OCTET, BLOCK)
    values: Vec<i16>,
    /// (groups, TILE)
    scales: Vec<f32>,
    /// Of one vector.
    blocks: usize,
}

impl Int8Tile {
    /// Loads the vectors `groups` of the items `row_of(0..n)` of an 8-bit table, 1 <= n <= TILE; lanes beyond them repeat the
    /// last.
    pub fn load(&mut self, table: &Table, groups: Range<usize>, n: usize, row_of: impl Fn(usize) -> usize) {
        self.blocks = table.group_width().div_ceil(BLOCK);
        self.values.resize(groups.len() * TILE * self.blocks * BLOCK, 0);
        self.scales.resize(groups.len() * TILE, 0.0);
        let items = std::array::from_fn(|lane| row_of(lane.min(n - 1)));
        Arch::new().dispatch(Widen { table, groups, items, tile: self });
    }

    /// The scores (B, TILE) of the tile: for each query the sum over its `per_query` rows, which are as many as the vectors
    /// of an item; or, with a `transform` and the (components, TILE) norms of the tile, all of the only vector.
    pub fn score(
        &self,
        queries: &FixedRows,
        per_query: usize,
        transform: Option<(&Transform, &[f32])>,
        scores: &mut [f32],
    ) {
        let job = Job { tile: self, queries, per_query, transform, scores };
        match Arch::new() {
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Arch::V3(simd) => Simd::vectorize(simd, Score { kernel: simd, job }),
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Arch::V4(simd) => Simd::vectorize(simd, Score { kernel: *simd, job }),
            arch => arch.dispatch(Score { kernel: Portable, job }),
        }
    }

    /// (blocks, OCTET, BLOCK): one vector of each of the items `first .. first + OCTET`.
    #[inline(always)]
    fn octet(&self, vector: usize, first: usize) -> &[[Block; OCTET]] {
        let octets = self.values.as_chunks().0.as_chunks().0;
        &octets[(vector * (TILE / OCTET) + first / OCTET) * self.blocks..][..self.blocks]
    }
}

struct Widen<'a> {
    table: &'a Table,
    groups: Range<usize>,
    items: [usize; TILE],
    tile: &'a mut Int8Tile,
}

impl WithSimd for Widen<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Widen { table, groups, items, tile } = self;
        let Values::I8(values) = table.values() else { return };
        let (values, scales, width) = (values.as_slice(), table.scales(), table.group_width());
        let (blocks, n_groups) = (tile.blocks, table.groups());
        let out: &mut [[Block; OCTET]] = tile.values.as_chunks_mut().0.as_chunks_mut().0;
        for (lane, &item) in items.iter().enumerate() {
            for (vector, group) in groups.clone().enumerate() {
                let row = item * n_groups + group;
                tile.scales[vector * TILE + lane] = scales[row];
                let (whole, rest) = values[row * width..(row + 1) * width].as_chunks::<BLOCK>();
                let first = (vector * (TILE / OCTET) + lane / OCTET) * blocks;
                let out = &mut out[first..first + blocks];
                for (out, block) in out.iter_mut().zip(whole) {
                    widen(block, &mut out[lane % OCTET]);
                }
                if !rest.is_empty() {
                    let mut block = [0; BLOCK];
                    block[..rest.len()].copy_from_slice(rest);
                    widen(&block, &mut out[whole.len()][lane % OCTET]);
                }
            }
        }
    }
}

#[inline(always)]
fn widen(bytes: &[i8; BLOCK], out: &mut Block) {
    for (out, &byte) in out.iter_mut().zip(bytes) {
        *out = i16::from(byte);
    }
}

/// Multiplies a vector with eight items.
trait Kernel {
    /// The sums of products with each item, of at most [`PART`] integers.
    fn sums(&self, items: &[[Block; OCTET]], query: &[Block]) -> [i32; OCTET];
}

struct Portable;

impl Kernel for Portable {
    #[inline(always)]
    fn sums(&self, items: &[[Block; OCTET]], query: &[Block]) -> [i32; OCTET] {
        let mut sums = [0; OCTET];
        for (items, query) in items.iter().zip(query) {
            for (sum, item) in sums.iter_mut().zip(items) {
                for (&x, &q) in item.iter().zip(query) {
                    *sum += i32::from(x) * i32::from(q);
                }
            }
        }
        sums
    }
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
impl Kernel for pulp::x86::V3 {
    /// Products are added in pairs, then in eight lanes, then across the lanes.
    #[inline(always)]
    fn sums(&self, items: &[[Block; OCTET]], query: &[Block]) -> [i32; OCTET] {
        let (avx, avx2) = (self.avx, self.avx2);
        let mut sums = [avx._mm256_setzero_si256(); OCTET];
        for (items, &query) in items.iter().zip(query) {
            let query = pulp::cast(query);
            for i in 0..OCTET {
                sums[i] = avx2._mm256_add_epi32(sums[i], avx2._mm256_madd_epi16(pulp::cast(items[i]), query));
            }
        }
        let mut halves = [avx._mm256_setzero_si256(); 2];
        for i in 0..2 {
            let first = avx2._mm256_hadd_epi32(sums[4 * i], sums[4 * i + 1]);
            let second = avx2._mm256_hadd_epi32(sums[4 * i + 2], sums[4 * i + 3]);
            halves[i] = avx2._mm256_hadd_epi32(first, second);
        }
        let low = avx2._mm256_permute2x128_si256::<0x20>(halves[0], halves[1]);
        let high = avx2._mm256_permute2x128_si256::<0x31>(halves[0], halves[1]);
        pulp::cast(avx2._mm256_add_epi32(low, high))
    }
}

struct Job<'a> {
    tile: &'a Int8Tile,
    queries: &'a FixedRows,
    per_query: usize,
    transform: Option<(&'a Transform<'a>, &'a [f32])>,
    scores: &'a mut [f32],
}

struct Score<'a, K> {
    kernel: K,
    job: Job<'a>,
}

impl<K: Kernel> WithSimd for Score<'_, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Score { kernel, job: Job { tile, queries, per_query, transform, scores } } = self;
        let (scores, _) = scores.as_chunks_mut::<OCTET>();
        let (scales, _) = tile.scales.as_chunks::<OCTET>();
        for (index, (row, scale)) in queries.rows().enumerate() {
            let (query, m) = (index / per_query, index % per_query);
            let vector = if transform.is_some() { 0 } else { m };
            let row = row.as_chunks().0;
            for octet in 0..TILE / OCTET {
                let items = tile.octet(vector, octet * OCTET);
                let mut sums = [0.0; OCTET];
                for (items, row) in items.chunks(PART / BLOCK).zip(row.chunks(PART / BLOCK)) {
                    let part = kernel.sums(items, row);
                    for lane in 0..OCTET {
                        sums[lane] += part[lane] as f32;
                    }
                }
                let scales = &scales[vector * (TILE / OCTET) + octet];
                let scores = &mut scores[query * (TILE / OCTET) + octet];
                for lane in 0..OCTET {
                    sums[lane] = sums[lane] * scales[lane] * scale;
                }
                if m == 0 {
                    *scores = [0.0; OCTET];
                }
                if let Some((transform, norms)) = transform {
                    let first = (transform.components.start + m) * (TILE / OCTET) + octet;
                    let (norms, _) = norms.as_chunks::<OCTET>();
                    for lane in 0..OCTET {
                        sums[lane] = (sums[lane] + transform.bias[index]) * norms[first][lane];
                    }
                }
                for lane in 0..OCTET {
                    scores[lane] += sums[lane];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::Dtype;

    #[test]
    fn every_kernel_finds_the_same_bits() {
        for (groups, width) in [(1, 5), (3, 16), (2, 1100)] {
            let values = |n: usize, scale: f32| (0..n).map(|i| (i as f32 * scale).sin()).collect::<Vec<f32>>();
            let mut table = Table::new(groups, width, Dtype::I8);
            table.append(&values(40 * groups * width, 0.7));
            let queries = FixedRows::from_rows(&values(3 * groups * width, 0.3), width);
            let mut tile = Int8Tile::default();
            tile.load(&table, 0..groups, 29, |lane| 39 - lane);
            let (mut expected, mut found) = (vec![0.0; 3 * TILE], vec![1.0; 3 * TILE]);
            let job = Job { tile: &tile, queries: &queries, per_query: groups, transform: None, scores: &mut expected };
            Arch::new().dispatch(Score { kernel: Portable, job });
            tile.score(&queries, groups, None, &mut found);
            assert!(expected[0] != 0.0 && expected[0] != expected[1]);
            assert_eq!(found, expected, "{groups} groups of {width}");
        }
    }
}
