//! Scans by centroid interaction (PLAID, arXiv 2205.09707, section 3): late interaction with centroids in place of the vectors nearest
//! to them. The products of query vectors and centroids are computed once; of an item only numbers of centroids are read.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::tile_scan::TileScan;
use crate::backend::cpu::dot::micro_kernel::{RowBlocks, Store, TILE};
use crate::backend::cpu::simd::aligned::AlignedFloats;
use crate::backend::cpu::simd::run;
use crate::backend::cpu::top_k::local_hits::LocalHits;
use crate::tables::TokenCodes;
use crate::threads;
use crate::token_embeddings::TokenEmbeddings;

/// A scan of all items of a table.
pub struct CentroidScan<'a> {
    items: &'a TokenCodes,
    /// For each query and each tile of its vectors (C, TILE): products of centroids and vectors.
    products: Vec<Vec<AlignedFloats>>,
}

impl<'a> CentroidScan<'a> {
    /// Of `items`, for `queries` of the same width.
    pub fn new(items: &'a TokenCodes, queries: &TokenEmbeddings) -> CentroidScan<'a> {
        let centroids = items.centroids();
        let (n, width) = (centroids.rows(), centroids.width());
        let rows = RowBlocks::from_rows(centroids.data(), n, width);
        let tiles = |query: usize| queries.vectors_of(query).chunks(TILE * width.max(1));
        let all: Vec<&[f32]> = (0..queries.len()).flat_map(tiles).collect();
        let product = |lanes: &mut AlignedFloats, vectors: &&[f32]| {
            lanes.resize(width * TILE);
            // Lanes without a vector have products of 0, which add nothing to a score.
            lanes.fill(0.0);
            for (lane, row) in vectors.chunks_exact(width.max(1)).enumerate() {
                row.iter().enumerate().for_each(|(column, value)| lanes[column * TILE + lane] = *value);
            }
            let mut products = AlignedFloats::zeros(n * TILE);
            run(Products { rows: &rows, lanes, products: &mut products });
            products
        };
        let mut products = threads::map(&all, 1, product).into_iter();
        let of_query = |query| products.by_ref().take(tiles(query).len()).collect();
        CentroidScan { items, products: (0..queries.len()).map(of_query).collect() }
    }
}

impl TileScan for CentroidScan<'_> {
    type Scratch = ();

    fn scan(&self, tiles: Range<usize>, (): &mut (), found: &mut LocalHits) {
        // One query after the other: its products fill most of a cache.
        for (query, products) in self.products.iter().enumerate() {
            for tile in tiles.clone() {
                let n = found.items_of(tile);
                let (mut scores, first) = ([0.0; TILE], tile * TILE);
                for products in products {
                    run(AddMaxima { items: self.items, first, products, scores: &mut scores[..n] });
                }
                found.add_scores(query, &scores[..n], |lane| (first + lane) as u32);
            }
        }
    }
}

struct Products<'a> {
    rows: &'a RowBlocks,
    lanes: &'a [f32],
    products: &'a mut [f32],
}

impl WithSimd for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.rows.multiply(simd, self.lanes, &mut Store(self.products));
    }
}

/// Adds to the score of each item from position `first` on the greatest products of a tile of query vectors.
struct AddMaxima<'a> {
    items: &'a TokenCodes,
    first: usize,
    /// (C, TILE)
    products: &'a [f32],
    scores: &'a mut [f32],
}

impl WithSimd for AddMaxima<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let AddMaxima { items, first, products, scores } = self;
        let registers = TILE / S::F32_LANES;
        let (products, _) = S::as_simd_f32s(products);
        for (i, score) in scores.iter_mut().enumerate() {
            let codes = items.of(first + i);
            for pair in (0..registers).step_by(2) {
                let mut best = [simd.splat_f32s(f32::NEG_INFINITY); 2];
                for &code in codes {
                    // Codes were compared with the number of centroids when they came in.
                    let at = usize::from(code) * registers + pair;
                    let Some(row) = products.get(at..at + 2) else { continue };
                    best = [simd.max_f32s(best[0], row[0]), simd.max_f32s(best[1], row[1])];
                }
                *score += simd.reduce_sum_f32s(simd.add_f32s(best[0], best[1]));
            }
        }
    }
}
