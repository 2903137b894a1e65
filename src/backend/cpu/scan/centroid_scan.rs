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

/// Most bytes of products that are kept at a time, unless a single query has more.
const MOST_BYTES: usize = 64 << 20;

/// Ranges of queries that are scanned together, since their products fit into memory.
pub fn slices(items: &TokenCodes, queries: &TokenEmbeddings) -> Vec<Range<usize>> {
    let lengths = (0..queries.len()).map(|query| queries.range(query).len());
    within(MOST_BYTES, lengths.map(|length| length.div_ceil(TILE) * items.centroids().rows() * size_of::<Products>()))
}

/// Ranges of queries of so many bytes each, of at most `most` bytes or of a single query.
fn within(most: usize, bytes: impl Iterator<Item = usize>) -> Vec<Range<usize>> {
    let mut slices: Vec<Range<usize>> = Vec::new();
    let mut sum = 0;
    for (query, bytes) in bytes.enumerate() {
        match slices.last_mut() {
            Some(slice) if sum + bytes <= most => {
                slice.end = query + 1;
                sum += bytes;
            }
            _ => {
                slices.push(query..query + 1);
                sum = bytes;
            }
        }
    }
    slices
}

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
    /// Of `items`, with the `rows` of their centroids, for those `queries` of the same width in the range `slice`.
    pub fn new(
        items: &'a TokenCodes,
        rows: &RowBlocks,
        queries: &TokenEmbeddings,
        slice: Range<usize>,
    ) -> CentroidScan<'a> {
        let extent = (items.centroids().rows(), items.centroids().width());
        let numbers: Vec<usize> = slice.collect();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::MOST_CENTROIDS;
    use crate::tensor::Tensor;

    #[test]
    fn a_batch_is_cut_where_its_products_would_fill_memory() {
        assert_eq!(within(10, [3, 7, 1, 11, 9, 1, 0, 5].into_iter()), [0..2, 2..3, 3..4, 4..7, 7..8]);
        assert_eq!(within(10, std::iter::empty()), []);
        // A tile of query vectors takes 2 MiB.
        let centroids = Tensor::trusted(vec![MOST_CENTROIDS, 1], vec![0.0; MOST_CENTROIDS]);
        let items = TokenCodes::new(centroids, &[0], std::iter::once(0..1));
        let queries = Tensor::trusted(vec![71, 1], vec![0.0; 71]);
        let lengths = [[33].as_slice(), &[1; 38]].concat();
        let Ok(queries) = TokenEmbeddings::new(queries, &lengths) else { panic!("lengths add up") };
        assert_eq!(slices(&items, &queries), [0..31, 31..39]);
    }
}
