//! Inner products of all queries with all items: with whole rows of a table, or with some of its columns.

use pulp::{Arch, Simd, WithSimd};

use super::table::Table;
use super::tile::{RowBlocks, Store, TILE};
use super::workers::{Found, TileScan};

/// A scan of one table.
pub struct DotScan<'a> {
    /// Query vectors as rows.
    pub queries: RowBlocks,
    /// Number of query vectors.
    pub n_queries: usize,
    /// Item vectors.
    pub items: &'a Table,
    /// The first of the columns that the query vectors are multiplied with.
    pub first_column: usize,
}

/// Scratch memory of one thread.
#[derive(Default)]
pub struct Scratch {
    converted: Vec<f32>,
    scores: Vec<f32>,
}

impl TileScan for DotScan<'_> {
    type Scratch = Scratch;

    fn scan(&self, tiles: std::ops::Range<usize>, scratch: &mut Scratch, found: &mut Found) {
        scratch.scores.resize(self.n_queries * TILE, 0.0);
        for tile in tiles {
            let items = &self.items.tile(tile, &mut scratch.converted)[self.first_column * TILE..];
            Arch::new().dispatch(Scores { queries: &self.queries, items, scores: &mut scratch.scores });
            for (query, scores) in scratch.scores.chunks_exact(TILE).enumerate() {
                found.offer(query, tile, scores);
            }
        }
    }
}

struct Scores<'a> {
    queries: &'a RowBlocks,
    items: &'a [f32],
    scores: &'a mut [f32],
}

impl WithSimd for Scores<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.queries.multiply(simd, self.items, &mut Store(self.scores));
    }
}
