//! Scans by inner product: with some vectors of each item or, through a [`Transform`], with components of which the table has the raw
//! embeddings.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::backoff::Backoff;
use super::dot_queries::Queries;
use super::tile_scan::TileScan;
use crate::backend::cpu::dot::int8_tile::Int8Tile;
use crate::backend::cpu::dot::item_tile::ItemTile;
use crate::backend::cpu::dot::micro_kernel::{RowBlocks, Sink, TILE, row, store};
use crate::backend::cpu::dot::transform::Transform;
use crate::backend::cpu::simd::aligned::AlignedFloats;
use crate::backend::cpu::simd::prefetch::PrefetchQueue;
use crate::backend::cpu::simd::run;
use crate::backend::cpu::small_batch::{Prefilter, TileMagnitudes, small_batch_i8};
use crate::backend::cpu::top_k::filter::{Filter, PassedScores};
use crate::backend::cpu::top_k::local_hits::LocalHits;
use crate::tables::Table;
use crate::tensor::Tensor;

/// A scan of one table.
pub struct DotScan<'a> {
    /// Query vectors as rows.
    pub queries: Queries,
    /// Number of query vectors.
    pub n_queries: usize,
    /// Item vectors.
    pub items: &'a Table,
    /// Which vectors of an item the queries are multiplied with.
    pub groups: Range<usize>,
    /// How raw embeddings become components, if `items` are raw embeddings.
    pub transform: Option<Transform<'a>>,
    /// Leaves out tiles, where one is available.
    pub prefilter: Option<Prefilter<'a>>,
}

impl<'a> DotScan<'a> {
    /// The products of the rows `vectors` with the vectors `groups` of the `items`, whose magnitudes are kept in `magnitudes`.
    pub fn new(
        vectors: &Tensor,
        items: &'a Table,
        groups: Range<usize>,
        magnitudes: &'a TileMagnitudes,
    ) -> DotScan<'a> {
        let queries = Queries::new(items, vectors.data(), vectors.rows(), vectors.width());
        let prefilter = Prefilter::new(vectors.data(), items, groups.clone(), magnitudes);
        DotScan { queries, n_queries: vectors.rows(), items, groups, transform: None, prefilter }
    }
}

/// Scratch memory of one thread.
#[derive(Default)]
pub struct Scratch {
    items: ItemTile,
    integers: Int8Tile,
    norms: ItemTile,
    sums: AlignedFloats,
    passed: PassedScores,
    prefetch: PrefetchQueue,
    /// A prefilter leaves out little while the threshold is low, and where many results are wanted of few items.
    backoff: Backoff,
}

/// The first `n` bits, of at least one.
const fn bits(n: usize) -> u32 {
    u32::MAX >> (u32::BITS as usize - n)
}

impl DotScan<'_> {
    /// Which of 1 to 32 tiles may hold a score of use: a bit for each.
    fn passing(&self, tiles: Range<usize>, backoff: &mut Backoff, found: &LocalHits) -> u32 {
        const { assert!(Self::CHUNK <= u32::BITS as usize) };
        let all = bits(tiles.len());
        let (Some(prefilter), true) = (&self.prefilter, backoff.should_try(tiles.len())) else { return all };
        // The last tile of the table may have fewer items.
        let whole = tiles.len() - usize::from(found.items_of(tiles.end - 1) < TILE);
        if whole == 0 || found.threshold(0) == f32::NEG_INFINITY {
            return all;
        }
        let left_out = bits(whole) & !prefilter.passing(tiles.start..tiles.start + whole, found.threshold(0));
        backoff.record(2 * left_out.count_ones() as usize >= whole);
        all & !left_out
    }
}

impl TileScan for DotScan<'_> {
    // Prefilters prefetch beyond the last tile of a chunk, in vain if another thread takes the next chunk. So chunks are long.
    const CHUNK: usize = 32;
    type Scratch = Scratch;

    fn scan(&self, tiles: Range<usize>, scratch: &mut Scratch, found: &mut LocalHits) {
        let Scratch { items, integers, norms, sums, passed, prefetch, backoff } = scratch;
        passed.fit(self.n_queries);
        sums.resize(self.n_queries * TILE);
        let passing = self.passing(tiles.clone(), backoff, found);
        for (bit, tile) in tiles.enumerate() {
            if passing >> bit & 1 == 0 {
                continue;
            }
            let range = tile * TILE..tile * TILE + found.items_of(tile);
            let row_of = |lane: usize| range.start + lane;
            let transform = self.transform.as_ref().map(|transform| {
                let norms = norms.load(transform.inverse_norms, 0..1, range.len(), row_of);
                (transform, norms)
            });
            prefetch.clear();
            // The other kernels read memory in an order that hardware prefetchers recognise.
            if let Queries::Floats(_, None) = &self.queries {
                prefetch.add(self.items, self.groups.clone(), range.end..range.end + TILE);
            }
            let mut filter = Filter { thresholds: found.thresholds(), passed, prefetch };
            match (&self.queries, transform) {
                (Queries::Floats(_, Some(small_batch)), None) => {
                    small_batch.multiply(self.items, self.groups.clone(), range.clone(), &mut filter);
                }
                (Queries::Floats(_, Some(small_batch)), Some((transform, norms))) => {
                    let mut sink = TransformedSums { transform, norms, sums, filter };
                    small_batch.multiply(self.items, self.groups.clone(), range.clone(), &mut sink);
                }
                (Queries::Floats(queries, None), None) => {
                    let items = items.load(self.items, self.groups.clone(), range.len(), row_of);
                    run(TileProducts { queries, items, sink: filter });
                }
                (Queries::Floats(queries, None), Some((transform, norms))) => {
                    let items = items.load(self.items, self.groups.clone(), range.len(), row_of);
                    run(TileProducts { queries, items, sink: TransformedSums { transform, norms, sums, filter } });
                }
                (Queries::Integers(queries), transform) => {
                    let groups = self.groups.clone();
                    let done =
                        transform.is_none() && small_batch_i8(queries, self.items, groups.clone(), range.clone(), sums);
                    if !done {
                        integers.load(self.items, groups, range.len(), row_of);
                        let per_query = transform.map_or(&self.groups, |(transform, _)| &transform.components).len();
                        integers.score(queries, per_query, transform, sums);
                    }
                    filter.take_all(sums);
                }
            }
            found.add_passed(tile, passed);
        }
    }
}

/// Multiplies all queries with a tile of items in lanes.
struct TileProducts<'a, K> {
    queries: &'a RowBlocks,
    items: &'a [f32],
    sink: K,
}

impl WithSimd for TileProducts<'_, Filter<'_>> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        self.queries.multiply(simd, self.items, &mut self.sink);
    }
}

impl WithSimd for TileProducts<'_, TransformedSums<'_>> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        self.queries.multiply(simd, self.items, &mut self.sink);
    }
}

/// Sums the products with transformed queries over the components of each query, in order.
struct TransformedSums<'a> {
    transform: &'a Transform<'a>,
    norms: &'a [f32],
    /// (B, TILE)
    sums: &'a mut [f32],
    filter: Filter<'a>,
}

impl<S: Simd> Sink<S> for TransformedSums<'_> {
    #[inline(always)]
    fn take(&mut self, simd: S, index: usize, first: usize, [a, b]: [S::f32s; 2]) {
        let transform = self.transform;
        let per_query = transform.components.len();
        let (query, m) = (index / per_query, index % per_query);
        let bias = simd.splat_f32s(transform.bias[index]);
        let [norm_a, norm_b] = row::<S>(self.norms, transform.components.start + m, first);
        let (a, b) = (simd.mul_f32s(simd.add_f32s(a, bias), norm_a), simd.mul_f32s(simd.add_f32s(b, bias), norm_b));
        let sums = match m {
            0 => [a, b],
            _ => {
                let [x, y] = row::<S>(self.sums, query, first);
                [simd.add_f32s(x, a), simd.add_f32s(y, b)]
            }
        };
        match m + 1 == per_query {
            true => self.filter.take(simd, query, first, sums),
            false => store::<S>(self.sums, query, first, sums),
        }
    }

    #[inline(always)]
    fn expect_steps(&mut self, n: usize) {
        self.filter.prefetch.spread_over(n);
    }

    #[inline(always)]
    fn step(&mut self) {
        self.filter.prefetch.step();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Exclusions;
    use crate::backend::cpu::scan::tile_scan;
    use crate::tables::Dtype;

    #[test]
    fn a_single_query_finds_to_the_bit_what_it_finds_among_others() {
        // Enough for a prefilter, where there is one.
        const N: usize = if cfg!(any(target_arch = "x86", target_arch = "x86_64")) { 20_001 } else { 1001 };
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        for (dtype, groups) in [(Dtype::F32, 1), (Dtype::F16, 1), (Dtype::I8, 1), (Dtype::F16, 2), (Dtype::I8, 2)] {
            let width = 48;
            let mut table = Table::new(groups, width, dtype);
            table.append(&(0..N * groups * width).map(|_| random()).collect::<Vec<f32>>());
            let vectors = Tensor::trusted(vec![6, width], (0..6 * width).map(|_| random()).collect());
            let tiles = (N.div_ceil(TILE), N);
            let magnitudes = TileMagnitudes::new(N.div_ceil(TILE));
            let best = |vectors: &Tensor, k: usize| {
                let scan = DotScan::new(vectors, &table, groups - 1..groups, &magnitudes);
                tile_scan::best(&Default::default(), &scan, tiles, vectors.rows(), k, &Exclusions::default()).0
            };
            for k in [1, 10, 300, N / 2] {
                let together = best(&vectors, k);
                for (query, expected) in together.iter().enumerate() {
                    let alone = best(&Tensor::trusted(vec![1, width], vectors.row(query).to_vec()), k);
                    assert_eq!(expected.len(), k);
                    let bits = |hits: &[crate::backend::ScoredPosition]| {
                        hits.iter().map(|hit| (hit.position, hit.score.to_bits())).collect::<Vec<_>>()
                    };
                    assert_eq!(bits(&alone[0]), bits(expected), "{dtype:?}, {groups} groups, k = {k}, query {query}");
                }
            }
        }
    }
}
