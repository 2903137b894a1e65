//! What is asked of a searcher.

use super::{Algorithm, Cancel, ScoreFusion};
use crate::attributes::Condition;
use crate::index::Filter;

/// A search for a batch of queries.
///
/// ```
/// use rails_wgpu::{Algorithm, Request};
///
/// let request = Request::new(Algorithm::Tangent { candidates: 1000 }, 10).with_excluded(&[&[17, 4]]).with_certify(true);
/// ```
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Request<'a> {
    /// How.
    pub algorithm: Algorithm,
    /// Items per query, at least 1; where the index has fewer, all of them.
    pub k: usize,
    /// Ids that must not be found: one list per query, or no list at all.
    pub excluded: &'a [&'a [u64]],
    /// Ids that any query may find; `None`: all.
    pub filter: Option<&'a Filter>,
    /// What attributes of an item must be for it to be found: one condition for all queries, one per query, or none at all. Few
    /// matching items are scored one by one, so that the result is exact whatever the algorithm.
    pub conditions: &'a [Condition],
    /// Scores of the caller's that the similarity is added to.
    pub fusion: Option<ScoreFusion<'a>>,
    /// Whether to find out how far the result can be from the exact one, which takes another scan of the components.
    pub certify: bool,
    /// Ends the search before its time.
    pub cancel: Option<&'a Cancel>,
    /// Whether to ask a GPU what its kernels take ([`Answer::kernels`](super::Answer::kernels)). It then waits after every submission, and runs one
    /// kernel at a time: the search takes longer, other searches take as long as ever.
    pub profile: bool,
}

impl<'a> Request<'a> {
    /// The `k` best items, whatever they are.
    pub fn new(algorithm: Algorithm, k: usize) -> Request<'a> {
        Request {
            algorithm,
            k,
            excluded: &[],
            filter: None,
            conditions: &[],
            fusion: None,
            certify: false,
            cancel: None,
            profile: false,
        }
    }

    /// Sets [`Request::excluded`].
    #[must_use]
    pub fn with_excluded(self, excluded: &'a [&'a [u64]]) -> Request<'a> {
        Request { excluded, ..self }
    }

    /// Sets [`Request::filter`].
    #[must_use]
    pub fn with_filter(self, filter: impl Into<Option<&'a Filter>>) -> Request<'a> {
        Request { filter: filter.into(), ..self }
    }

    /// Sets [`Request::conditions`].
    #[must_use]
    pub fn with_conditions(self, conditions: &'a [Condition]) -> Request<'a> {
        Request { conditions, ..self }
    }

    /// Sets [`Request::fusion`].
    #[must_use]
    pub fn with_fusion(self, fusion: impl Into<Option<ScoreFusion<'a>>>) -> Request<'a> {
        Request { fusion: fusion.into(), ..self }
    }

    /// Sets [`Request::certify`].
    #[must_use]
    pub fn with_certify(self, certify: bool) -> Request<'a> {
        Request { certify, ..self }
    }

    /// Sets [`Request::cancel`].
    #[must_use]
    pub fn with_cancel(self, cancel: impl Into<Option<&'a Cancel>>) -> Request<'a> {
        Request { cancel: cancel.into(), ..self }
    }

    /// Sets [`Request::profile`].
    #[must_use]
    pub fn with_profile(self, profile: bool) -> Request<'a> {
        Request { profile, ..self }
    }
}
