//! Scans by centroid interaction (PLAID, arXiv 2205.09707, section 3): late interaction with centroids in place of the vectors nearest
//! to them. The products of query vectors and centroids are computed once, and rounded to bytes, so that those of a query stay in a
//! cache; of an item only numbers of centroids are read.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::tile_scan::TileScan;
use crate::backend::cpu::dot::micro_kernel::{RowBlocks, Store, TILE};
use crate::backend::cpu::simd::aligned::AlignedFloats;
use crate::backend::cpu::simd::run;
use crate::backend::cpu::top_k::local_hits::LocalHits;
use crate::tables::TokenCodes;
use crate::threads;
use crate::token_embeddings::TokenEmbeddings;

/// Products of a tile of query vectors with one centroid.
type Products = [u8; TILE];

/// A scan of all items of a table.
pub struct CentroidScan<'a> {
    items: &'a TokenCodes,
    queries: Vec<Query>,
}

/// The products of the vectors of a query with all centroids: `least + step * byte`.
struct Query {
    /// For each tile of its vectors (C). Lanes without a vector are zeros.
    tiles: Vec<Vec<Products>>,
    /// The sum of the least product over all vectors.
    least: f32,
    step: f32,
}

/// The centroids of a table as rows.
pub fn centroid_rows(items: &TokenCodes) -> RowBlocks {
    let centroids = items.centroids();
    RowBlocks::from_rows(centroids.data(), centroids.rows(), centroids.width())
}

impl<'a> CentroidScan<'a> {
    /// Of `items`, with the `rows` of their centroids, for `queries` of the same width.
    pub fn new(items: &'a TokenCodes, rows: &RowBlocks, queries: &TokenEmbeddings) -> CentroidScan<'a> {
        let extent = (items.centroids().rows(), items.centroids().width());
        let numbers: Vec<usize> = (0..queries.len()).collect();
        let query = |work: &mut Work, &query: &usize| Query::new(queries.vectors_of(query), rows, extent, work);
        CentroidScan { items, queries: threads::map(&numbers, 1, query) }
    }
}

/// Scratch memory of one thread.
#[derive(Default)]
struct Work {
    lanes: AlignedFloats,
    /// For each tile (C, TILE)
    products: Vec<AlignedFloats>,
}

impl Query {
    fn new(vectors: &[f32], rows: &RowBlocks, (n, width): (usize, usize), work: &mut Work) -> Query {
        let Work { lanes, products } = work;
        let tiles = vectors.chunks(TILE * width.max(1));
        products.resize_with(products.len().max(tiles.len()), AlignedFloats::default);
        lanes.resize(width * TILE);
        let (mut least, mut greatest) = (f32::INFINITY, f32::NEG_INFINITY);
        for (vectors, products) in tiles.clone().zip(products.iter_mut()) {
            // Lanes without a vector repeat the last one.
            let last = vectors.len() / width.max(1) - 1;
            for lane in 0..TILE {
                let row = &vectors[lane.min(last) * width..][..width];
                row.iter().enumerate().for_each(|(column, value)| lanes[column * TILE + lane] = *value);
            }
            products.resize(n * TILE);
            run(Multiply { rows, lanes, products });
            for &product in products.iter() {
                (least, greatest) = (least.min(product), greatest.max(product));
            }
        }
        let step = (greatest - least) / 255.0;
        let inverse = if step > 0.0 { 1.0 / step } else { 0.0 };
        let rounded = |(vectors, products): (&[f32], &AlignedFloats)| {
            let used = vectors.len() / width.max(1);
            let row = |row: &[f32]| -> Products {
                std::array::from_fn(|lane| if lane < used { ((row[lane] - least) * inverse).round() as u8 } else { 0 })
            };
            products.chunks_exact(TILE).map(row).collect()
        };
        let n_vectors = (vectors.len() / width.max(1)) as f32;
        Query { tiles: tiles.zip(products.iter()).map(rounded).collect(), least: n_vectors * least, step }
    }
}

impl TileScan for CentroidScan<'_> {
    type Scratch = ();

    fn scan(&self, tiles: Range<usize>, (): &mut (), found: &mut LocalHits) {
        // One query after the other, so that its products stay in the cache.
        for (number, query) in self.queries.iter().enumerate() {
            for tile in tiles.clone() {
                let n = found.items_of(tile);
                let (mut sums, first) = ([0; TILE], tile * TILE);
                for products in &query.tiles {
                    Arch::new().dispatch(AddMaxima { items: self.items, first, products, sums: &mut sums[..n] });
                }
                let scores = sums.map(|sum| query.least + query.step * sum as f32);
                found.add_scores(number, &scores[..n], |lane| (first + lane) as u32);
            }
        }
    }
}

struct Multiply<'a> {
    rows: &'a RowBlocks,
    lanes: &'a [f32],
    products: &'a mut [f32],
}

impl WithSimd for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.rows.multiply(simd, self.lanes, &mut Store(self.products));
    }
}

/// Adds for each item from position `first` on the greatest products of a tile of query vectors.
struct AddMaxima<'a> {
    items: &'a TokenCodes,
    first: usize,
    /// (C)
    products: &'a [Products],
    sums: &'a mut [u32],
}

impl WithSimd for AddMaxima<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let AddMaxima { items, first, products, sums } = self;
        for (i, sum) in sums.iter_mut().enumerate() {
            let mut best = [0; TILE];
            for &code in items.of(first + i) {
                // Codes were compared with the number of centroids when they came in.
                let Some(row) = products.get(usize::from(code)) else { continue };
                for lane in 0..TILE {
                    best[lane] = best[lane].max(row[lane]);
                }
            }
            *sum += best.iter().map(|&byte| u32::from(byte)).sum::<u32>();
        }
    }
}
