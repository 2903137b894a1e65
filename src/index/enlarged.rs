//! Queries so small that their products with items would vanish.

use crate::backend::{QueryBatch, Scorer};
use crate::tensor::Tensor;

/// Queries without a greater magnitude are enlarged.
const TINY: f32 = 1.0 / (1u64 << 63) as f32;

/// Queries for inner products, each tiny one times the power of two that makes its largest magnitude about 1. That changes
/// neither the order of scores nor a bit of them, but for those that would have vanished.
pub(super) struct Enlarged {
    pub queries: QueryBatch,
    /// (B): what the scores of a query have to be multiplied with.
    inverse: Vec<f64>,
}

impl Enlarged {
    /// `None` if no query is tiny, or `scorer` is not one of inner products.
    pub fn of(scorer: Scorer, queries: &QueryBatch) -> Option<Enlarged> {
        let embeddings = &queries.embeddings;
        let largest = |row: &[f32]| row.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        let is_tiny = |row: &[f32]| (f32::from_bits(1)..TINY).contains(&largest(row));
        let rows = || embeddings.data().chunks_exact(embeddings.width().max(1));
        if scorer != Scorer::Dot || !rows().any(is_tiny) {
            return None;
        }
        let inverse = rows().map(|row| if is_tiny(row) { f64::from(largest(row)).log2().floor().exp2() } else { 1.0 });
        let inverse: Vec<f64> = inverse.collect();
        let rows =
            rows().zip(&inverse).flat_map(|(row, inverse)| row.iter().map(move |x| (f64::from(*x) / inverse) as f32));
        let embeddings = Tensor::trusted(embeddings.shape().to_vec(), rows.collect());
        Some(Enlarged { queries: QueryBatch { embeddings, ..queries.clone() }, inverse })
    }

    /// The score of the query as it was.
    pub fn restore(&self, query: usize, score: &mut f32) {
        *score = (f64::from(*score) * self.inverse[query]) as f32;
    }
}
