//! Scans of inverted lists by inner product: each query vector with the items of the lists that it probes.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::dot_queries::Queries;
use super::tile_scan::TileScan;
use crate::backend::cpu::dot::int8_tile::Int8Tile;
use crate::backend::cpu::dot::item_tile::ItemTile;
use crate::backend::cpu::dot::micro_kernel::{RowBlocks, Store, TILE};
use crate::backend::cpu::simd::aligned::AlignedFloats;
use crate::backend::cpu::simd::run;
use crate::backend::cpu::top_k::local_hits::LocalHits;
use crate::tables::Lists;
use crate::tensor::Tensor;

/// A scan whose units of work are lists instead of tiles: the items of a list are loaded once for all vectors that probe it.
pub struct ListScan<'a> {
    lists: &'a Lists,
    vectors: &'a Tensor,
    /// Vectors that probe each list.
    probed_by: Vec<Vec<u32>>,
}

impl<'a> ListScan<'a> {
    /// `probes` names the lists of each of the `vectors`.
    pub fn new(lists: &'a Lists, vectors: &'a Tensor, probes: &[Vec<u32>]) -> ListScan<'a> {
        let mut probed_by = vec![Vec::new(); lists.centroids.rows()];
        for (vector, list) in probes.iter().enumerate().flat_map(|(v, lists)| lists.iter().map(move |list| (v, *list)))
        {
            probed_by[list as usize].push(vector as u32);
        }
        ListScan { lists, vectors, probed_by }
    }
}

/// Scratch memory of one thread.
#[derive(Default)]
pub struct Scratch {
    items: ItemTile,
    integers: Int8Tile,
    scores: AlignedFloats,
}

impl TileScan for ListScan<'_> {
    type Scratch = Scratch;
    const CHUNK: usize = 1;

    fn scan(&self, lists: Range<usize>, scratch: &mut Scratch, found: &mut LocalHits) {
        let Scratch { items, integers, scores } = scratch;
        let table = &self.lists.vectors;
        for (list, vectors) in lists.clone().zip(&self.probed_by[lists]).filter(|(_, vectors)| !vectors.is_empty()) {
            let rows: Vec<f32> = vectors.iter().flat_map(|&v| self.vectors.row(v as usize)).copied().collect();
            let queries = Queries::new(table, &rows, vectors.len(), self.vectors.width());
            scores.resize(vectors.len() * TILE);
            let range = self.lists.list(list as u32);
            for first in range.clone().step_by(TILE) {
                let positions = &self.lists.positions[first..range.end.min(first + TILE)];
                let groups = 0..table.groups();
                match &queries {
                    Queries::Floats(_, Some(small_batch)) => {
                        small_batch.multiply(table, groups, first..first + positions.len(), &mut Store(scores));
                    }
                    Queries::Floats(queries, None) => {
                        items.load(table, groups, positions.len(), |lane| first + lane);
                        run(Products { queries, items: items.values(), scores });
                    }
                    Queries::Integers(queries) => {
                        integers.load(table, groups, positions.len(), |lane| first + lane);
                        integers.score(queries, table.groups(), None, scores);
                    }
                }
                for (&vector, scores) in vectors.iter().zip(scores.chunks_exact(TILE)) {
                    found.add_scores(vector as usize, &scores[..positions.len()], |lane| positions[lane]);
                }
            }
        }
    }
}

struct Products<'a> {
    queries: &'a RowBlocks,
    items: &'a [f32],
    scores: &'a mut [f32],
}

impl WithSimd for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.queries.multiply(simd, self.items, &mut Store(self.scores));
    }
}
