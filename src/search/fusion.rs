//! Hybrid searches: a weighted sum of the similarity and scores that the caller brings.
//!
//! An item without a score of the caller's keeps its place among such items, whatever the weight. So the best of them are those of
//! an ordinary search that leaves out the items with such scores, and these are scored one by one.

use super::{Certificate, Found, Hit};
use crate::error::Parameter;
use crate::index::{Excluded, Snapshot};
use crate::{Error, Result};

/// A weighted sum of scores: `weight * similarity + score`, for what a search by words has found, say.
///
/// ```
/// use rails_wgpu::{Algorithm, QueryBatch, Request, ScoreFusion, Searcher, Tensor};
///
/// # fn main() -> rails_wgpu::Result<()> {
/// let items = Tensor::from_rows([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]);
/// let searcher = Searcher::builder().embeddings(&[10, 20, 30], &items).device("cpu").build()?;
/// let queries = QueryBatch::new(Tensor::from_rows([[1.0, 0.0]]));
/// // One query, for which a search by words has found item 20.
/// let by_words = [&[(20, 0.75)][..]];
/// let request = Request::new(Algorithm::Exact, 2).with_fusion(ScoreFusion::new(0.5, &by_words));
/// let hits = &searcher.answer(&queries, &request)?.hits[0];
/// assert_eq!((hits[0].id, hits[0].score), (20, 0.75));
/// assert_eq!((hits[1].id, hits[1].score), (10, 0.5));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ScoreFusion<'a> {
    weight: f32,
    scores: &'a [&'a [(u64, f32)]],
}

/// The items of a request that have scores of the caller's and can be found: for each query positions, ascending, and scores.
pub(super) struct Fused {
    weight: f32,
    /// (B)
    pub positions: Vec<Vec<u32>>,
    scores: Vec<Vec<f32>>,
}

impl<'a> ScoreFusion<'a> {
    /// `weight`, a positive number, times the similarity, plus the score that `scores` has for the item: one list of ids and
    /// scores per query; items that are not in it have 0. Ids that are not in the index are passed over.
    pub fn new(weight: f32, scores: &'a [&'a [(u64, f32)]]) -> ScoreFusion<'a> {
        ScoreFusion { weight, scores }
    }

    /// Whether there is one list per query.
    ///
    /// # Errors
    /// If not.
    pub(super) fn check_queries(&self, n_queries: usize) -> Result<()> {
        if self.scores.len() == n_queries {
            return Ok(());
        }
        let expected = format!("{n_queries} lists of ids and scores, one per query");
        Err(Error::argument(Parameter::FusedScores, expected, self.scores.len()))
    }

    /// The lists of some of the queries.
    pub(super) fn lists_of(&self, queries: &[usize]) -> Vec<&'a [(u64, f32)]> {
        queries.iter().map(|&query| self.scores[query]).collect()
    }

    /// The same with other lists.
    pub(super) fn with_lists<'b>(&self, scores: &'b [&'b [(u64, f32)]]) -> ScoreFusion<'b> {
        ScoreFusion { weight: self.weight, scores }
    }

    /// What of it can be found in `snapshot`.
    ///
    /// # Errors
    /// If an id is given twice, or a number is not finite, or the weight not positive.
    pub(super) fn in_snapshot(&self, snapshot: &Snapshot, excluded: &Excluded) -> Result<Fused> {
        if !(self.weight > 0.0 && self.weight.is_finite()) {
            return Err(Error::argument(Parameter::FusionWeight, "a positive number", self.weight));
        }
        let mut fused = Fused { weight: self.weight, positions: Vec::new(), scores: Vec::new() };
        for (query, list) in self.scores.iter().enumerate() {
            if let Some((id, score)) = list.iter().find(|(_, score)| !score.is_finite()) {
                let found = format!("{score} for id {id} of query {query}");
                return Err(Error::argument(Parameter::FusedScores, "finite numbers", found));
            }
            let mut ids: Vec<u64> = list.iter().map(|(id, _)| *id).collect();
            ids.sort_unstable();
            if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
                let found = format!("id {} twice for query {query}", pair[0]);
                return Err(Error::argument(Parameter::FusedScores, "each id once", found));
            }
            let places = list.iter().filter_map(|(id, score)| Some((snapshot.position(*id)?, *score)));
            let mut places: Vec<(u32, f32)> =
                places.filter(|(position, _)| !snapshot.excludes(excluded, query, *position)).collect();
            places.sort_unstable_by_key(|(position, _)| *position);
            let (positions, scores) = places.into_iter().unzip();
            fused.positions.push(positions);
            fused.scores.push(scores);
        }
        Ok(fused)
    }
}

impl Fused {
    /// The best `k` of the items that a search has found without those with scores of the caller's, and of these, whose
    /// `similarities` are those of [`Fused::positions`].
    ///
    /// # Errors
    /// If an item cannot be scored.
    pub fn merged(
        &self,
        snapshot: &Snapshot,
        similarities: Vec<Vec<f32>>,
        k: usize,
        (hits, certificates): Found,
    ) -> Result<Found> {
        let mut all = Vec::with_capacity(hits.len());
        for (query, (found, similarities)) in hits.into_iter().zip(similarities).enumerate() {
            if let Some(scored) = similarities.iter().position(|score| !score.is_finite()) {
                return Err(Error::NotScored { query, expected: similarities.len(), found: scored });
            }
            let pairs = self.positions[query].iter().zip(&self.scores[query]).zip(similarities);
            let own = pairs.map(|((&position, score), similarity)| Hit {
                id: snapshot.id(position),
                score: self.weight * similarity + score,
            });
            let others = found.into_iter().map(|hit| Hit { score: self.weight * hit.score, ..hit });
            let mut merged: Vec<Hit> = others.chain(own).collect();
            merged.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.id.cmp(&b.id)));
            merged.truncate(k);
            all.push(merged);
        }
        let scaled = |certificate| match certificate {
            Certificate::AtMost(bound) => Certificate::AtMost(self.weight * bound),
            Certificate::Exact => Certificate::Exact,
        };
        Ok((all, certificates.into_iter().map(scaled).collect()))
    }
}
