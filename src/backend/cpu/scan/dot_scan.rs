//! Inner products of all queries with all items: with some vectors of a table, or, for tables of raw embeddings, with the
//! components that these stand for.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::backoff::Patience;
use super::dot_queries::Queries;
use crate::backend::cpu::dot::int8_tile::Int8Tile;
use crate::backend::cpu::dot::item_tile::Lanes;
use crate::backend::cpu::dot::micro_kernel::{RowBlocks, Sink, TILE, row, store};
use crate::backend::cpu::dot::transform::Transform;
use crate::backend::cpu::simd::aligned::AlignedFloats;
use crate::backend::cpu::simd::prefetch::Ahead;
use crate::backend::cpu::simd::run;
use crate::backend::cpu::small_batch::{Sieve, few_integers};
use crate::backend::cpu::top_k::filter::{Filter, Passed};
use crate::backend::cpu::workers::{Found, TileScan};
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
    /// Those of an item that the query vectors are multiplied with.
    pub groups: Range<usize>,
    /// What turns raw embeddings into components.
    pub transform: Option<Transform<'a>>,
    /// What leaves out tiles, if it can be had.
    pub sieve: Option<Sieve>,
}

impl<'a> DotScan<'a> {
    /// The products of the rows `vectors` with the vectors `groups` of the `items`.
    pub fn new(vectors: &Tensor, items: &'a Table, groups: Range<usize>) -> DotScan<'a> {
        let queries = Queries::new(items, vectors.data(), vectors.rows(), vectors.width());
        let sieve = Sieve::new(vectors.data(), items, groups.clone());
        DotScan { queries, n_queries: vectors.rows(), items, groups, transform: None, sieve }
    }
}

/// Scratch memory of one thread.
#[derive(Default)]
pub struct Scratch {
    items: Lanes,
    integers: Int8Tile,
    norms: Lanes,
    sums: AlignedFloats,
    passed: Passed,
    ahead: Ahead,
    /// A sieve is in vain before there is a floor that is worth the name, and where many results are wanted of few items.
    patience: Patience,
}

/// The first `n` bits, of at least one.
const fn bits(n: usize) -> u32 {
    u32::MAX >> (u32::BITS as usize - n)
}

impl DotScan<'_> {
    /// Of some tiles, at least one and at most 32, those that may hold a score of use, in bits.
    fn sieved(&self, tiles: Range<usize>, patience: &mut Patience, found: &Found) -> u32 {
        const { assert!(Self::CHUNK <= u32::BITS as usize) };
        let all = bits(tiles.len());
        let (Some(sieve), true) = (&self.sieve, patience.is_over(tiles.len())) else { return all };
        // The last tile of all may be short of items.
        let whole = tiles.len() - usize::from(found.items_of(tiles.end - 1) < TILE);
        if whole == 0 || found.floor(0) == f32::NEG_INFINITY {
            return all;
        }
        let left_out = bits(whole) & !sieve.passing(self.items, tiles.start..tiles.start + whole, found.floor(0));
        patience.learn(2 * (left_out.count_ones() as usize) < whole);
        all & !left_out
    }
}

impl TileScan for DotScan<'_> {
    // A sieve asks for memory beyond its last tile, which another thread may have taken: not often.
    const CHUNK: usize = 32;
    type Scratch = Scratch;

    fn scan(&self, tiles: Range<usize>, scratch: &mut Scratch, found: &mut Found) {
        let Scratch { items, integers, norms, sums, passed, ahead, patience } = scratch;
        passed.fit(self.n_queries);
        sums.resize(self.n_queries * TILE);
        let passing = self.sieved(tiles.clone(), patience, found);
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
            ahead.clear();
            // For few rows of queries, and for integers, memory is read in an order that prefetchers know.
            if let Queries::Floats(_, None) = &self.queries {
                ahead.add(self.items, self.groups.clone(), range.end..range.end + TILE);
            }
            let mut filter = Filter { floors: found.floors(), passed, ahead };
            match (&self.queries, transform) {
                (Queries::Floats(_, Some(few)), None) => {
                    few.multiply(self.items, self.groups.clone(), range.clone(), &mut filter);
                }
                (Queries::Floats(_, Some(few)), Some((transform, norms))) => {
                    let mut sink = Sums { transform, norms, sums, filter };
                    few.multiply(self.items, self.groups.clone(), range.clone(), &mut sink);
                }
                (Queries::Floats(queries, None), None) => {
                    let items = items.load(self.items, self.groups.clone(), range.len(), row_of);
                    run(OfLanes { queries, items, sink: filter });
                }
                (Queries::Floats(queries, None), Some((transform, norms))) => {
                    let items = items.load(self.items, self.groups.clone(), range.len(), row_of);
                    run(OfLanes { queries, items, sink: Sums { transform, norms, sums, filter } });
                }
                (Queries::Integers(queries), transform) => {
                    let groups = self.groups.clone();
                    let done =
                        transform.is_none() && few_integers(queries, self.items, groups.clone(), range.clone(), sums);
                    if !done {
                        integers.load(self.items, groups, range.len(), row_of);
                        let per_query = transform.map_or(&self.groups, |(transform, _)| &transform.components).len();
                        integers.score(queries, per_query, transform, sums);
                    }
                    filter.take_all(sums);
                }
            }
            found.offer_passed(tile, passed);
        }
    }
}

/// All queries and the items of a tile in lanes.
struct OfLanes<'a, K> {
    queries: &'a RowBlocks,
    items: &'a [f32],
    sink: K,
}

impl WithSimd for OfLanes<'_, Filter<'_>> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        self.queries.multiply(simd, self.items, &mut self.sink);
    }
}

impl WithSimd for OfLanes<'_, Sums<'_>> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        self.queries.multiply(simd, self.items, &mut self.sink);
    }
}

/// Takes the products of a tile with transformed queries, which are summed for each query, in the order of its components.
struct Sums<'a> {
    transform: &'a Transform<'a>,
    norms: &'a [f32],
    /// (B, TILE)
    sums: &'a mut [f32],
    filter: Filter<'a>,
}

impl<S: Simd> Sink<S> for Sums<'_> {
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
    fn pauses(&mut self, n: usize) {
        self.filter.ahead.pauses(n);
    }

    #[inline(always)]
    fn pause(&mut self) {
        self.filter.ahead.pause();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Exclusions;
    use crate::backend::cpu::workers;
    use crate::tables::Dtype;

    #[test]
    fn a_single_query_finds_to_the_bit_what_it_finds_among_others() {
        const N: usize = 20_001;
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        for (dtype, groups) in [(Dtype::F32, 1), (Dtype::F16, 1), (Dtype::I8, 1), (Dtype::F16, 2), (Dtype::I8, 2)] {
            let width = 48;
            let mut table = Table::new(groups, width, dtype);
            table.append(&(0..N * groups * width).map(|_| random()).collect::<Vec<f32>>());
            let vectors = Tensor::new(vec![6, width], (0..6 * width).map(|_| random()).collect());
            let tiles = (N.div_ceil(TILE), N);
            let best = |vectors: &Tensor, k: usize| {
                let scan = DotScan::new(vectors, &table, groups - 1..groups);
                workers::best(&scan, tiles, vectors.rows(), k, &Exclusions::default()).0
            };
            for k in [1, 10, 300, 9000] {
                let together = best(&vectors, k);
                for (query, expected) in together.iter().enumerate() {
                    let alone = best(&Tensor::new(vec![1, width], vectors.row(query).to_vec()), k);
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
