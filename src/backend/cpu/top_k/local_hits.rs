//! What a scan finds: the results of one thread for a batch of queries.

use super::filter::{PassedScores, at_least};
use super::local::LocalTopK;
use crate::backend::Exclusions;
use crate::backend::cpu::dot::micro_kernel::TILE;

/// What one thread keeps for one query.
pub enum QueryHits<'a> {
    /// The best k items.
    Best(LocalTopK<'a>),
    /// The positions of all items with a score of at least the threshold.
    Above { threshold: f32, positions: Vec<u32> },
}

/// What one thread has found, for all queries.
pub struct LocalHits<'a> {
    /// (B)
    lists: Vec<QueryHits<'a>>,
    /// (B)
    thresholds: Vec<f32>,
    excluded: &'a Exclusions,
    n_items: usize,
    /// Pairs of queries and items that were left out.
    pub pruned: u64,
}

impl<'a> LocalHits<'a> {
    /// Empty, of a table of `n_items` items.
    pub fn new(lists: Vec<QueryHits<'a>>, excluded: &'a Exclusions, n_items: usize) -> LocalHits<'a> {
        let threshold = |list: &QueryHits| match list {
            QueryHits::Best(top_k) => top_k.threshold(),
            QueryHits::Above { threshold, .. } => *threshold,
        };
        let thresholds = lists.iter().map(threshold).collect();
        LocalHits { lists, thresholds, excluded, n_items, pruned: 0 }
    }

    /// (B)
    pub fn into_lists(self) -> Vec<QueryHits<'a>> {
        self.lists
    }

    /// (B): scores below these are of no use.
    pub fn thresholds(&self) -> &[f32] {
        &self.thresholds
    }

    /// A score below this is of no use to `query`.
    #[inline]
    pub fn threshold(&self, query: usize) -> f32 {
        self.thresholds[query]
    }

    /// Items in `tile`.
    pub fn items_of(&self, tile: usize) -> usize {
        TILE.min(self.n_items - tile * TILE)
    }

    /// Takes over the thresholds that other threads have raised.
    pub fn refresh(&mut self) {
        for (threshold, list) in self.thresholds.iter_mut().zip(&mut self.lists) {
            if let QueryHits::Best(top_k) = list {
                top_k.refresh();
                *threshold = top_k.threshold();
            }
        }
    }

    /// Moves all hits to the lists that threads share.
    pub fn merge(&mut self) {
        for list in &mut self.lists {
            if let QueryHits::Best(top_k) = list {
                top_k.merge();
            }
        }
    }

    /// Adds the scores of one tile that passed. Lanes beyond the last item of the table are ignored.
    pub fn add_passed(&mut self, tile: usize, passed: &mut PassedScores) {
        let n = self.items_of(tile);
        passed.drain(|query, scores, passed| {
            self.add(query, &scores[..n], passed, |lane| (tile * TILE + lane) as u32);
        });
    }

    /// Adds those of at most [`TILE`] scores of one query that are of use.
    #[inline]
    pub fn add_scores(&mut self, query: usize, scores: &[f32], position_of: impl Fn(usize) -> u32) {
        self.add(query, scores, at_least(scores, self.thresholds[query]), position_of);
    }

    /// Adds the scores of which `passed` has a bit, unless their items are excluded.
    #[inline]
    fn add(&mut self, query: usize, scores: &[f32], mut passed: u32, position_of: impl Fn(usize) -> u32) {
        while passed != 0 {
            let lane = passed.trailing_zeros() as usize;
            passed &= passed - 1;
            let Some(&score) = scores.get(lane) else { break };
            let position = position_of(lane);
            if self.excluded.excludes(query, position) {
                continue;
            }
            match &mut self.lists[query] {
                QueryHits::Best(top_k) => {
                    if top_k.push(position, score) {
                        self.thresholds[query] = top_k.threshold();
                    }
                }
                QueryHits::Above { positions, .. } => positions.push(position),
            }
        }
    }
}
