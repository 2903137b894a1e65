//! Inner products of all queries with all items.

use pulp::{Arch, Simd, WithSimd};

use super::table::Table;
use super::tile::{RowBlocks, Store, TILE};
use super::workers::{Found, TileScan};

/// A scan of the raw item embeddings.
pub struct DotScan<'a> {
    /// Query embeddings as rows.
    pub queries: RowBlocks,
    /// B: number of queries.
    pub n_queries: usize,
    /// Raw item embeddings, width D.
    pub items: &'a Table,
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
            let items = self.items.tile(tile, &mut scratch.converted);
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
