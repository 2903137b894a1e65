//! How far an approximate result can be from the exact one.
//!
//! A mixture is not greater than its largest logit. So the largest logit of any item that an algorithm has not scored
//! bounds the score of everything that it missed; if that is below the k-th score found, nothing was missed. For late
//! interaction no bound is both cheap and narrow: what was missed is scored.

use crate::Result;
use crate::backend::{PreparedQueries, Scorer, SearchContext};
use crate::index::{Excluded, Snapshot};

use super::{Candidates, Hit};

/// What is known about the items that a result leaves out.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Certificate {
    /// The result is the one of an exact search.
    Exact,
    /// No item that was missed has a greater score than this.
    AtMost(f32),
}

/// Certificates of results that were chosen from `candidates`.
///
/// # Errors
/// If the device fails.
pub(super) fn certify(
    context: &SearchContext,
    snapshot: &Snapshot,
    queries: &PreparedQueries,
    k: usize,
    hits: &[Vec<Hit>],
    candidates: &Candidates,
    excluded: &Excluded,
) -> Result<Vec<Certificate>> {
    let others = snapshot.exclude_positions(excluded, candidates);
    let bound = match snapshot.scorer() {
        Scorer::Mol => Scorer::Bound,
        exact => exact,
    };
    let greatest = snapshot.scan(context, bound, queries, 1, &others)?;
    let certificate = |(hits, greatest): (&Vec<Hit>, Vec<crate::backend::ScoredPosition>)| {
        // The k-th score found; without k hits there is nothing that could have been displaced.
        let kth = hits.get(k - 1).map_or(f32::NEG_INFINITY, |hit| hit.score);
        match greatest.first() {
            Some(bound) if bound.score >= kth => Certificate::AtMost(bound.score),
            _ => Certificate::Exact,
        }
    };
    Ok(hits.iter().zip(greatest).map(certificate).collect())
}
