//! Inner products of all queries with all items: with some vectors of a table, or, for tables of raw embeddings, with the
//! components that these stand for.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::fixed_rows::FixedRows;
use super::int8_tile::Int8Tile;
use super::lanes::Lanes;
use super::mol_kernel::{row, run};
use super::tile::{RowBlocks, Sink, Store, TILE, store};
use super::workers::{Found, TileScan};
use crate::tables::{Dtype, Table};

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
}

/// Query vectors as rows, for the number format of a table.
pub enum Queries {
    /// For floats: all groups of a query are one row.
    Floats(RowBlocks),
    /// For 8-bit integers: each group is a row.
    Integers(FixedRows),
}

impl Queries {
    /// `rows` row-major rows of `width` values, for `items`.
    pub fn new(items: &Table, values: &[f32], rows: usize, width: usize) -> Queries {
        match items.dtype() {
            Dtype::I8 => Queries::Integers(FixedRows::from_rows(values, items.group_width())),
            Dtype::F32 | Dtype::F16 => Queries::Floats(RowBlocks::from_rows(values, rows, width)),
        }
    }
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
    integers: Int8Tile,
    norms: Lanes,
    scores: Vec<f32>,
}

impl TileScan for DotScan<'_> {
    type Scratch = Scratch;

    fn scan(&self, tiles: Range<usize>, scratch: &mut Scratch, found: &mut Found) {
        let Scratch { items, integers, norms, scores } = scratch;
        scores.resize(self.n_queries * TILE, 0.0);
        for tile in tiles {
            let n = found.items_of(tile);
            if let Some(transform) = &self.transform {
                norms.load(transform.inverse_norms, 0..1, n, |lane| tile * TILE + lane);
            }
            match &self.queries {
                Queries::Floats(queries) => {
                    items.load(self.items, self.groups.clone(), n, |lane| tile * TILE + lane);
                    run(Scores { scan: self, queries, items: items.values(), norms: norms.values(), scores });
                }
                Queries::Integers(queries) => {
                    integers.load(self.items, self.groups.clone(), n, |lane| tile * TILE + lane);
                    let transform = self.transform.as_ref();
                    let per_query = transform.map_or(&self.groups, |transform| &transform.components).len();
                    let transform = transform.map(|transform| (transform, norms.values()));
                    integers.score(queries, per_query, transform, scores);
                }
            }
            found.offer_all(tile, scores);
        }
    }
}

struct Scores<'a> {
    scan: &'a DotScan<'a>,
    queries: &'a RowBlocks,
    items: &'a [f32],
    norms: &'a [f32],
    scores: &'a mut [f32],
}

impl WithSimd for Scores<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match &self.scan.transform {
            None => self.queries.multiply(simd, self.items, &mut Store(self.scores)),
            Some(transform) => {
                let mut sink = Transformed { transform, norms: self.norms, scores: self.scores };
                self.queries.multiply(simd, self.items, &mut sink);
            }
        }
    }
}

/// Sums the components of each query, in their order.
struct Transformed<'a> {
    transform: &'a Transform<'a>,
    norms: &'a [f32],
    scores: &'a mut [f32],
}

impl<S: Simd> Sink<S> for Transformed<'_> {
    #[inline(always)]
    fn take(&mut self, simd: S, index: usize, first: usize, [a, b]: [S::f32s; 2]) {
        let per_query = self.transform.components.len();
        let (query, m) = (index / per_query, index % per_query);
        let bias = simd.splat_f32s(self.transform.bias[index]);
        let [norm_a, norm_b] = row::<S>(self.norms, self.transform.components.start + m, first);
        let (a, b) = (simd.mul_f32s(simd.add_f32s(a, bias), norm_a), simd.mul_f32s(simd.add_f32s(b, bias), norm_b));
        let sums = match m {
            0 => [a, b],
            _ => {
                let [x, y] = row::<S>(self.scores, query, first);
                [simd.add_f32s(x, a), simd.add_f32s(y, b)]
            }
        };
        store::<S>(self.scores, query, first, sums);
    }
}
