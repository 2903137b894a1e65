//! The queries of a benchmark, encoded once and cut into batches of any size.

use std::ops::ControlFlow;

use super::Rules;
use super::batch::Batch;
use rails_wgpu::backend::QueryBatch;
use rails_wgpu::dataset::Sequence;
use rails_wgpu::eval::history_of;
use rails_wgpu::index::RowIds;
use rails_wgpu::search::HistoryEncoder;
use rails_wgpu::sequence::History;
use rails_wgpu::tensor::Tensor;
use rails_wgpu::{Condition, Result};

/// Users encoded at a time.
const ENCODED_AT_ONCE: usize = 128;

/// Query embeddings with what each user has seen and what comes next.
pub struct QuerySet {
    queries: QueryBatch,
    seen: Vec<Vec<u64>>,
    targets: Vec<u64>,
    conditions: Vec<Condition>,
}

impl QuerySet {
    /// Queries of users who have seen nothing and of whom nothing else is known.
    pub fn new(queries: QueryBatch) -> QuerySet {
        let seen = vec![Vec::new(); queries.len()];
        QuerySet { queries, seen, targets: Vec::new(), conditions: Vec::new() }
    }

    /// Encodes the histories of `sequences`, of items that an index knows by the ids of `rows`, each of at least two events; the last is
    /// what comes next. `progress` is
    /// called with the number of users done and ends the work with [`ControlFlow::Break`]; the result is then `None`.
    ///
    /// # Errors
    /// If a sequence has no history, an id is beyond the item table, or the device fails.
    pub fn encode(
        encoder: &HistoryEncoder,
        sequences: &[Sequence],
        rules: Rules,
        rows: &RowIds,
        progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Option<QuerySet>> {
        let (mut data, mut user_ids, mut seen, mut targets) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for users in sequences.chunks(ENCODED_AT_ONCE) {
            let histories: Vec<History> = users.iter().map(history_of).collect();
            data.extend_from_slice(encoder.encode(&histories)?.embeddings.data());
            user_ids.extend(users.iter().map(|user| user.user_id));
            seen.extend(histories.iter().map(|history| rules.seen(history, encoder.config(), rows)));
            targets.extend(users.iter().filter_map(|user| user.item_ids.last().map(|&row| rows.id(row))));
            if progress(user_ids.len()).is_break() {
                return Ok(None);
            }
        }
        let embeddings = Tensor::new([user_ids.len(), data.len() / user_ids.len().max(1)], data)?;
        let queries = QueryBatch::new(embeddings).with_users(user_ids);
        Ok(Some(QuerySet { queries, seen, targets, conditions: Vec::new() }))
    }

    /// The same, for items that meet a condition, if there is one.
    pub fn with_conditions(self, conditions: &[Condition]) -> QuerySet {
        QuerySet { conditions: conditions.to_vec(), ..self }
    }

    /// The same without what comes next: nothing is known of how good results are.
    pub fn without_targets(self) -> QuerySet {
        QuerySet { targets: Vec::new(), ..self }
    }

    /// Number of queries.
    pub fn len(&self) -> usize {
        self.queries.len()
    }

    /// Up to `n` queries from all over the set, for an index to learn from.
    pub fn spread(&self, n: usize) -> QueryBatch {
        let n = n.min(self.len());
        let indices: Vec<usize> = (0..n).map(|i| i * self.len() / n.max(1)).collect();
        self.queries.select(&indices)
    }

    /// The item that query `index` is about, if that is known.
    pub(super) fn target(&self, index: usize) -> Option<u64> {
        self.targets.get(index).copied()
    }

    /// `size` queries from `first` on; after the last one comes the first again.
    pub(super) fn batch(&self, first: usize, size: usize) -> Batch<'_> {
        let indices: Vec<usize> = (first..first + size).map(|i| i % self.len().max(1)).collect();
        let queries = self.queries.select(&indices);
        let seen = indices.iter().map(|&i| self.seen[i].as_slice()).collect();
        Batch { indices, queries, seen, conditions: &self.conditions }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_go_round() {
        let embeddings = Tensor::from_rows([[0.0, 1.0], [10.0, 11.0], [20.0, 21.0]]);
        let set = QuerySet::new(QueryBatch::new(embeddings).with_users([7, 8, 9]));
        let batch = set.batch(2, 5);
        assert_eq!(batch.indices, [2, 0, 1, 2, 0]);
        assert_eq!(batch.queries.user_ids, Some(vec![9, 7, 8, 9, 7]));
        assert_eq!(batch.queries.embeddings.data(), [20.0, 21.0, 0.0, 1.0, 10.0, 11.0, 20.0, 21.0, 0.0, 1.0]);
        assert_eq!((batch.seen.len(), set.target(0)), (5, None));
        assert_eq!((set.spread(2).user_ids, set.spread(9).user_ids), (Some(vec![7, 8]), Some(vec![7, 8, 9])));
    }
}
