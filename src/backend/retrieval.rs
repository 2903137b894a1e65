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
    /// The same within inverted lists of these columns, where there are any (see [`Probes`]).
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
    /// For late interaction: the best `n` items by their centroids.
    Centroids {
        /// Items per query.
        n: usize,
    },
    /// For late interaction: the best `n` items of each token embedding of a query, by its greatest inner product with one of
    /// theirs.
    Tokens {
        /// Items per token.
        n: usize,
    },
}

impl CandidateScan {
    /// Items that a vector finds, as far as there are so many; 0 where a threshold decides.
    pub fn per_vector(&self) -> usize {
        match self {
            CandidateScan::Best { n, .. } | CandidateScan::Lists { n, .. } | CandidateScan::Distilled { n } => *n,
            CandidateScan::Tokens { n } | CandidateScan::Centroids { n } => *n,
            CandidateScan::Above { .. } => 0,
        }
    }
}

/// How an approximate search finds the best items of each query.
#[derive(Clone, Debug)]
pub struct Retrieval {
    /// What they find together are the candidates; there is at least one.
    pub scans: Vec<CandidateScan>,
    /// Candidates that are left for the full similarity after the distilled gate has judged them, if it does.
    pub distilled: Option<usize>,
}

impl Retrieval {
    /// Whether the candidates of an index are those of its segments, whatever the others hold: where nothing but thresholds
    /// decides.
    pub fn is_by_thresholds(&self) -> bool {
        self.distilled.is_none() && self.scans.iter().all(|scan| matches!(scan, CandidateScan::Above { .. }))
    }
}

/// The inverted lists that the vectors of a scan look into.
#[derive(Clone, Debug)]
pub struct Probes {
    /// Number of the lists in the tables.
    pub lists: usize,
    /// (B * per_query): the lists of each vector.
    pub of_vectors: Vec<Vec<u32>>,
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

/// All candidates of a query in one of several segments, with the scores by which those of the whole index are told.
#[derive(Clone, Debug, Default)]
pub struct ScoredCandidates {
    /// For each scan and each vector of the query, in this order: the best items by the scan, best first.
    pub by_vector: Vec<Vec<ScoredPosition>>,
    /// All candidates with their scores by the distilled gate, if it judges them; positions ascend.
    pub distilled: Vec<ScoredPosition>,
    /// With their scores by the full similarity, all candidates, or the best by the distilled gate; positions ascend.
    pub scored: Vec<ScoredPosition>,
}
