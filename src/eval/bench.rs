//! Speed and recall of algorithms side by side: each batch is answered by every algorithm in turn, so that a machine that
//! slows down slows all of them.

use std::time::{Duration, Instant};

use super::history_of;
use crate::Result;
use crate::backend::{QueryBatch, QueryEncoder};
use crate::config::ModelConfig;
use crate::dataset::Sequence;
use crate::metrics::Quality;
use crate::search::{Algorithm, Hit, Searcher};
use crate::sequence::{History, SequenceBatch};

/// Times, recall and quality of one algorithm.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// Time of each batch, ascending.
    pub times: Vec<Duration>,
    /// Ranks of the targets.
    pub quality: Quality,
    /// Mean share of the exact results found.
    pub recall: f64,
}

impl Measurement {
    /// The time that a share `p` of the batches stay within.
    pub fn percentile(&self, p: f64) -> Duration {
        let last = self.times.len().saturating_sub(1);
        self.times.get((p * last as f64).round() as usize).copied().unwrap_or_default()
    }
}

/// What to measure, and how.
pub struct Bencher<'a> {
    /// Hyper-parameters of the model.
    pub config: &'a ModelConfig,
    /// Rows of the model's item table.
    pub n_item_rows: usize,
    /// The model's encoder.
    pub encoder: &'a dyn QueryEncoder,
    /// The items to be found.
    pub searcher: &'a Searcher,
    /// Items per result.
    pub k: usize,
    /// Users per batch.
    pub batch_size: usize,
    /// Batches answered by each algorithm before times count.
    pub warm_up: usize,
}

impl Bencher<'_> {
    /// Answers all `sequences` (each of at least two events; the last is the target, seen items are excluded) with each
    /// algorithm. Times cover the search, not the encoder; the last batch counts only if it is full, or alone.
    ///
    /// # Errors
    /// As [`Evaluator::run`](super::Evaluator::run).
    pub fn run(
        &self,
        algorithms: &[Algorithm],
        sequences: &[Sequence],
        mut progress: impl FnMut(usize),
    ) -> Result<Vec<Measurement>> {
        let empty = |&algorithm| Measurement { algorithm, times: Vec::new(), quality: Quality::new(None), recall: 0.0 };
        let mut measurements: Vec<Measurement> = algorithms.iter().map(empty).collect();
        for (index, users) in sequences.chunks(self.batch_size.max(1)).enumerate() {
            let histories: Vec<History> = users.iter().map(history_of).collect();
            let batch = SequenceBatch::new(&histories, self.config, self.n_item_rows)?;
            let queries = QueryBatch { embeddings: self.encoder.encode(&batch)?, user_ids: batch.user_ids };
            let seen: Vec<Vec<u64>> =
                histories.iter().map(|history| history.item_ids.iter().map(|&id| id.into()).collect()).collect();
            let seen: Vec<&[u64]> = seen.iter().map(Vec::as_slice).collect();
            if index == 0 {
                for algorithm in algorithms.iter().flat_map(|algorithm| std::iter::repeat_n(algorithm, self.warm_up)) {
                    self.searcher.search(*algorithm, &queries, self.k, &seen)?;
                }
            }
            let exact = self.searcher.search(Algorithm::Exact, &queries, self.k, &seen)?;
            for measurement in &mut measurements {
                let started = Instant::now();
                let hits = self.searcher.search(measurement.algorithm, &queries, self.k, &seen)?;
                let time = started.elapsed();
                if users.len() == self.batch_size || index == 0 {
                    measurement.times.push(time);
                }
                for ((user, hits), exact) in users.iter().zip(&hits).zip(&exact) {
                    let target = user.item_ids.last().map(|&id| u64::from(id));
                    let rank = hits.iter().position(|hit| Some(hit.id) == target);
                    measurement.quality.add(rank.map(|index| index + 1));
                    measurement.recall += recall(hits, exact);
                }
            }
            progress(index * self.batch_size + users.len());
        }
        for measurement in &mut measurements {
            measurement.times.sort_unstable();
            measurement.recall /= sequences.len().max(1) as f64;
        }
        Ok(measurements)
    }
}

/// The share of the ids of `exact` that are among `hits`; 1 if there are none.
fn recall(hits: &[Hit], exact: &[Hit]) -> f64 {
    let found: std::collections::HashSet<u64> = hits.iter().map(|hit| hit.id).collect();
    let n = exact.iter().filter(|hit| found.contains(&hit.id)).count();
    if exact.is_empty() { 1.0 } else { n as f64 / exact.len() as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recall_counts_ids_not_ranks() {
        let hits = |ids: &[u64]| ids.iter().map(|&id| Hit { id, score: 0.0 }).collect::<Vec<_>>();
        assert_eq!(recall(&hits(&[3, 1, 9, 4]), &hits(&[1, 2, 3, 4])), 0.75);
        assert_eq!(recall(&hits(&[]), &hits(&[1])), 0.0);
        assert_eq!(recall(&hits(&[]), &hits(&[])), 1.0);
    }

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let times = (1..=101).map(Duration::from_millis).collect();
        let measurement = Measurement { algorithm: Algorithm::Exact, times, quality: Quality::new(None), recall: 0.0 };
        assert_eq!(measurement.percentile(0.5), Duration::from_millis(51));
        assert_eq!(measurement.percentile(0.99), Duration::from_millis(100));
    }
}
