//! Approximate searches as a device sees them: scans that find candidates, and what becomes of these.

use super::{Columns, ScoredPosition};
use crate::tensor::Tensor;

/// What finds candidates: a scan of all items, or of inverted lists.
#[derive(Clone, Debug)]
pub enum CandidateScan {
    /// The best `n` items of each vector by inner product.
    Best {
        /// (B * per_query, W): the vectors of each query, one after the other.
        vectors: Tensor,
        /// What they are multiplied with.
        columns: Columns,
        /// Items per vector.
        n: usize,
        /// Vectors of a query.
        per_query: usize,
    },
    /// The same within inverted lists of these columns, where there are any.
    Lists {
        /// (B * per_query, W): the vectors of each query, one after the other.
        vectors: Tensor,
        /// What they are multiplied with.
        columns: Columns,
        /// Lists that each vector looks into.
        n_probe: usize,
        /// Items per vector.
        n: usize,
        /// Vectors of a query.
        per_query: usize,
    },
    /// All items whose inner product is at least the threshold of the query.
    Above {
        /// (B, W): a vector of each query.
        vectors: Tensor,
        /// What they are multiplied with.
        columns: Columns,
        /// (B)
        thresholds: Vec<f32>,
        /// About as many items of the index are expected for a query.
        expected: usize,
    },
    /// The best `n` items by the mixture with the distilled gate.
    Distilled {
        /// Items per query.
        n: usize,
    },
}

/// How an approximate search finds the best items of each query.
#[derive(Clone, Debug)]
pub struct Retrieval {
    /// What they find together are the candidates; there is at least one.
    pub scans: Vec<CandidateScan>,
    /// Candidates that are left for the full similarity after the distilled gate has judged them, if it does.
    pub distilled: Option<usize>,
}

/// What a retrieval has found for one query.
#[derive(Clone, Debug, Default)]
pub struct Retrieved {
    /// The best candidates by the full similarity, in the order of a result.
    pub hits: Vec<ScoredPosition>,
    /// Candidates that the hits were chosen from.
    pub n_candidates: usize,
    /// Items that were scored with the full similarity: more, where the candidates before were too few.
    pub n_scored: usize,
    /// Their positions, ascending, if they were asked for.
    pub candidates: Vec<u32>,
}
