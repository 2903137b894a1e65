//! What happens to seen items, and what a hit is.

use super::batch::Batch;
use rails_wgpu::Result;
use rails_wgpu::config::ModelConfig;
use rails_wgpu::eval::Protocol;
use rails_wgpu::index::RowIds;
use rails_wgpu::search::{Algorithm, Answer, Request, Searcher};
use rails_wgpu::sequence::History;

/// Most items that the reference's timed searches ask for (its `truncate_k_prime_to`).
const REFERENCE_MOST: usize = 200;

/// How a benchmark treats seen items, and which item it looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// Seen items are excluded inside the search, and the item looked for is the user's next one.
    Strict,
    /// Those of the reference's `eval_batch.py`: search for min(k + N, 200) items (N is the padded history length), drop
    /// those among the last `max_sequence_length` events, keep k; the item looked for is the first of the exact list. An
    /// algorithm is asked for no more items than it has candidates, so that its work is the reference's.
    EvalBatch {
        /// N.
        padded_length: usize,
    },
}

impl Rules {
    /// The rank of an item that was not found, in the MRR.
    pub(super) fn miss_rank(self, k: usize) -> Option<usize> {
        match self {
            Rules::Strict => None,
            Rules::EvalBatch { .. } => Some(k + 1),
        }
    }

    /// The ids, of `rows`, of the items that `history` has seen, as far back as the rules look.
    pub(super) fn seen(self, history: &History, config: &ModelConfig, rows: &RowIds) -> Vec<u64> {
        match self {
            Rules::Strict => Protocol::Strict.seen(history, config, rows),
            Rules::EvalBatch { .. } => Protocol::Reference.seen(history, config, rows),
        }
    }

    /// How many items to search for so that `k` unseen ones are found.
    pub(super) fn depth(self, searcher: &Searcher, algorithm: Algorithm, batch: &Batch, k: usize) -> Result<usize> {
        let Rules::EvalBatch { padded_length } = self else { return Ok(k) };
        let n_items = searcher.index().len();
        let most = (k + padded_length).min(REFERENCE_MOST).max(k).min(n_items);
        if matches!(algorithm, Algorithm::Exact | Algorithm::Mips) {
            return Ok(most);
        }
        let candidates = searcher.candidates(algorithm, &batch.queries, &[])?;
        Ok(candidates.iter().map(Vec::len).min().unwrap_or(most).clamp(1, most))
    }

    /// The best `k` unseen items of each query of `batch`, and what they took; `depth` is that of [`Rules::depth`].
    pub(super) fn search(
        self,
        searcher: &Searcher,
        algorithm: Algorithm,
        batch: &Batch,
        k: usize,
        depth: usize,
    ) -> Result<Answer> {
        if self == Rules::Strict {
            let request = Request::new(algorithm, k).with_excluded(&batch.seen).with_conditions(batch.conditions);
            return searcher.answer(&batch.queries, &request);
        }
        let mut answer = searcher.answer(&batch.queries, &Request::new(algorithm, depth))?;
        for (hits, seen) in answer.hits.iter_mut().zip(&batch.seen) {
            hits.retain(|hit| !seen.contains(&hit.id));
            hits.truncate(k);
        }
        Ok(answer)
    }
}
