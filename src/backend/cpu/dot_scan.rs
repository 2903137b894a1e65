//! Inner products of all queries with all items: with some vectors of a table, or, for tables of raw embeddings, with the
//! components that these stand for.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::aligned::AlignedFloats;
use super::few_rows::few_rows;
use super::filter::{Filter, Passed};
use super::lanes::Lanes;
use super::mol_kernel::{row, run};
use super::tile::{RowBlocks, Sink, TILE, store};
use super::workers::{Found, TileScan};
use crate::tables::Table;

/// A scan of one table.
pub struct DotScan<'a> {
    /// Query vectors as rows.
    pub queries: RowBlocks,
    /// Number of query vectors.
    pub n_queries: usize,
    /// Item vectors.
    pub items: &'a Table,
    /// Those of an item that the query vectors are multiplied with.
    pub groups: Range<usize>,
    /// What turns raw embeddings into components.
    pub transform: Option<Transform<'a>>,
}

/// How products with raw embeddings become products with components:
/// `<v, g> = sum_m (<W_m^T v_m, x> + <v_m, b_m>) / norm_m`, with one query row per (query, m).
pub struct Transform<'a> {
    /// (rows): <v_m, b_m>.
    pub bias: Vec<f32>,
    /// (N, P_X): 1 / norm_m.
    pub inverse_norms: &'a Table,
    /// Components m of each query.
    pub components: Range<usize>,
}

/// Scratch memory of one thread.
#[derive(Default)]
pub struct Scratch {
    items: Lanes,
    norms: Lanes,
    sums: AlignedFloats,
    passed: Passed,
}

impl TileScan for DotScan<'_> {
    type Scratch = Scratch;

    fn scan(&self, tiles: Range<usize>, scratch: &mut Scratch, found: &mut Found) {
        let Scratch { items, norms, sums, passed } = scratch;
        passed.fit(self.n_queries);
        if self.transform.is_some() {
            sums.resize(self.n_queries * TILE);
        }
        for tile in tiles {
            let n = found.items_of(tile);
            if let Some(transform) = &self.transform {
                norms.load(transform.inverse_norms, 0..1, n, |lane| tile * TILE + lane);
            }
            let filter = Filter { floors: found.floors(), passed };
            let mut sink = Sums { transform: self.transform.as_ref(), norms: norms.values(), sums, filter };
            if !few_rows(&self.queries, self.items, self.groups.clone(), tile * TILE..tile * TILE + n, &mut sink) {
                let items = items.load(self.items, self.groups.clone(), n, |lane| tile * TILE + lane);
                run(OfLanes { queries: &self.queries, items, sink });
            }
            found.offer_passed(tile, passed);
        }
    }
}

/// All queries and the items of a tile in lanes.
struct OfLanes<'a> {
    queries: &'a RowBlocks,
    items: &'a [f32],
    sink: Sums<'a>,
}

impl WithSimd for OfLanes<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        self.queries.multiply(simd, self.items, &mut self.sink);
    }
}

/// Takes the products of a tile. Those with transformed queries are summed for each query, in the order of its components.
struct Sums<'a> {
    transform: Option<&'a Transform<'a>>,
    norms: &'a [f32],
    /// (B, TILE), if there is a transform.
    sums: &'a mut [f32],
    filter: Filter<'a>,
}

impl<S: Simd> Sink<S> for Sums<'_> {
    #[inline(always)]
    fn take(&mut self, simd: S, index: usize, first: usize, [a, b]: [S::f32s; 2]) {
        let Some(transform) = self.transform else {
            return self.filter.take(simd, index, first, [a, b]);
        };
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
}
