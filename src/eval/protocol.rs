//! Evaluation protocols: what happens to items that a user has seen, and to targets that are not found.

use crate::attributes::Condition;
use crate::backend::QueryBatch;
use crate::config::ModelConfig;
use crate::error::Parameter;
use crate::index::RowIds;
use crate::names::names;
use crate::search::{Algorithm, Hit, Request, Searcher};
use crate::sequence::History;
use crate::{Error, Result};

/// How deep the reference searches.
const REFERENCE_DEPTH: usize = 2500;

/// How to evaluate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// Every event of the history is excluded inside the search; a target that is not found counts zero.
    Strict,
    /// The reference's: search for k + N items, then drop those among the last `max_sequence_length` events, putting
    /// the best seen ones back where fewer than k are left; a target that is not found has rank 2501 in the MRR.
    /// For like-for-like comparison with published tables.
    Reference,
}

impl Protocol {
    /// Items per result when `k` are asked for, of an index with `n_items`: no more than there are. The reference protocol always searches
    /// as deep as the reference does, so that its MRR is the published one.
    ///
    /// # Errors
    /// If `k` is 0.
    pub fn depth(self, k: usize, n_items: usize) -> Result<usize> {
        if k == 0 {
            return Err(Error::argument(Parameter::K, "at least 1", k));
        }
        Ok(match self {
            Protocol::Strict => k.min(n_items),
            Protocol::Reference => REFERENCE_DEPTH.min(n_items),
        })
    }

    /// The rank of a target that was not found.
    pub fn miss_rank(self) -> Option<usize> {
        match self {
            Protocol::Strict => None,
            Protocol::Reference => Some(REFERENCE_DEPTH + 1),
        }
    }

    /// The ids, of `rows`, of the items that `history` has seen, as far back as the protocol looks.
    pub fn seen(self, history: &History, config: &ModelConfig, rows: &RowIds) -> Vec<u64> {
        let first = match self {
            Protocol::Strict => 0,
            Protocol::Reference => history.item_ids.len().saturating_sub(config.max_sequence_length),
        };
        history.item_ids[first..].iter().map(|&row| rows.id(row)).collect()
    }

    /// The best `k` items of each query that were not `seen`.
    pub(super) fn search(
        self,
        (searcher, conditions): (&Searcher, &[Condition]),
        algorithm: Algorithm,
        queries: &QueryBatch,
        k: usize,
        config: &ModelConfig,
        seen: &[Vec<u64>],
    ) -> Result<Vec<Vec<Hit>>> {
        let search = |k: usize, excluded: &[&[u64]]| {
            let request = Request::new(algorithm, k).with_excluded(excluded).with_conditions(conditions);
            Ok::<_, Error>(searcher.answer(queries, &request)?.hits)
        };
        match self {
            Protocol::Strict => {
                let lists: Vec<&[u64]> = seen.iter().map(Vec::as_slice).collect();
                search(k, &lists)
            }
            Protocol::Reference => {
                let k_prime = (k + config.padded_length()).min(searcher.index().len());
                let found = search(k_prime, &[])?;
                Ok(found.into_iter().zip(seen).map(|(hits, seen)| filter_seen(hits, seen, k)).collect())
            }
        }
    }
}

/// The first `k` hits that are not in `seen`; where there are fewer, the best seen ones are put back at their places.
fn filter_seen(hits: Vec<Hit>, seen: &[u64], k: usize) -> Vec<Hit> {
    let unseen = hits.iter().filter(|hit| !seen.contains(&hit.id)).count();
    let (mut put_back, mut left) = (k.saturating_sub(unseen), k);
    let keep = |hit: &Hit| {
        let allowance = if seen.contains(&hit.id) { &mut put_back } else { &mut left };
        *allowance > 0 && {
            *allowance -= 1;
            true
        }
    };
    hits.into_iter().filter(keep).collect()
}

names!(Protocol, Parameter::Protocol, { Strict: "strict", Reference: "reference" });

#[cfg(test)]
mod tests {
    use super::*;

    fn filtered(ids: &[u64], seen: &[u64], k: usize) -> Vec<u64> {
        let hits = ids.iter().map(|&id| Hit { id, score: -(id as f32) }).collect();
        filter_seen(hits, seen, k).iter().map(|hit| hit.id).collect()
    }

    #[test]
    fn keeps_the_first_unseen() {
        assert_eq!(filtered(&[5, 3, 9, 7, 1], &[3, 7], 3), [5, 9, 1]);
        assert_eq!(filtered(&[5, 3, 9, 7, 1], &[], 2), [5, 3]);
    }

    #[test]
    fn puts_the_best_seen_back_at_their_original_rank() {
        // Two unseen items for k = 4: the two best seen ones (3, then 9) come back where they were.
        assert_eq!(filtered(&[5, 3, 9, 7, 1], &[3, 9, 7], 4), [5, 3, 9, 1]);
        assert_eq!(filtered(&[3, 5, 1, 7, 9], &[3, 1, 7, 9], 3), [3, 5, 1]);
    }

    #[test]
    fn a_seen_id_that_is_not_among_the_hits_changes_nothing() {
        assert_eq!(filtered(&[5, 3], &[8, 8, 0], 2), [5, 3]);
    }
}
