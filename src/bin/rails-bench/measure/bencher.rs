//! The measuring itself.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::batch::Batch;
use super::{QuerySet, Rules, Truth};
use rails_wgpu::Result;
use rails_wgpu::metrics::Quality;
use rails_wgpu::search::{Algorithm, Hit, Searcher};

/// Times, recall and quality of one algorithm.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// Time of each run of a batch, ascending.
    pub times: Vec<Duration>,
    /// Queries answered, each counted once.
    pub queries: usize,
    /// Mean number of items per query that were scored with the full similarity: for an algorithm with a first stage, the
    /// candidates that it came to have.
    pub scored: f64,
    /// Share of the pairs that pruning left out.
    pub pruned: f64,
    /// Ranks of the items looked for; empty where none is known.
    pub quality: Quality,
    /// Mean share of the exact results found.
    pub recall: f64,
    /// Mean share of the results that a bench file expects, if it does.
    pub agreement: Option<f64>,
}

impl Measurement {
    /// The time that a share `p` of the runs stay within.
    pub fn percentile(&self, p: f64) -> Duration {
        let last = self.times.len().saturating_sub(1);
        self.times.get((p * last as f64).round() as usize).copied().unwrap_or_default()
    }

    /// The mean time.
    pub fn mean(&self) -> Duration {
        self.times.iter().sum::<Duration>() / self.times.len().max(1) as u32
    }
}

/// What to measure, and how.
pub struct Bencher<'a> {
    /// The items to be found.
    pub searcher: &'a Searcher,
    /// The queries.
    pub queries: &'a QuerySet,
    /// Their exact results of k items, which may come from a more precise index.
    pub truth: &'a Truth,
    /// Lists of ids that a bench file expects, one per query.
    pub expected: Option<&'a [Vec<u64>]>,
    /// What happens to seen items.
    pub rules: Rules,
    /// Whether a target outside the index counts as a miss; otherwise its query is left out of the quality.
    pub count_absent_targets: bool,
    /// Items per result.
    pub k: usize,
    /// Queries per batch. The last batch is filled up with the first queries again, which count only for the time.
    pub batch_size: usize,
    /// Runs of the first batch by each algorithm before times count.
    pub warm_up: usize,
    /// Runs of each timed batch by each algorithm.
    pub runs: usize,
    /// Every which batch is timed; the others are answered once. 1: all.
    pub timed_every: usize,
}

impl Bencher<'_> {
    /// Answers all queries with each algorithm, batch after batch, run after run, the algorithms in turn. `progress` is
    /// called with the number of queries that one more run of all algorithms answered, and ends the work with
    /// [`ControlFlow::Break`]; the measurements then cover what was done.
    ///
    /// # Errors
    /// As [`Searcher::search`].
    pub fn run(
        &self,
        algorithms: &[Algorithm],
        progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Vec<Measurement>> {
        let size = self.batch_size.max(1);
        let quality = Quality::new(self.rules.miss_rank(self.k));
        let mut sums: Vec<Sums> = algorithms.iter().map(|&algorithm| Sums::new(algorithm, quality.clone())).collect();
        'batches: for (index, first) in (0..self.queries.len()).step_by(size).enumerate() {
            let batch = self.queries.batch(first, size);
            let fresh = size.min(self.queries.len() - first);
            let depth = |sums: &Sums| self.rules.depth(self.searcher, sums.algorithm, &batch, self.k);
            let depths: Vec<usize> = sums.iter().map(depth).collect::<Result<_>>()?;
            if index == 0 {
                for (sums, &depth) in sums.iter().zip(&depths) {
                    for _ in 0..self.warm_up {
                        self.rules.search(self.searcher, sums.algorithm, &batch, self.k, depth)?;
                    }
                }
            }
            let timed = index % self.timed_every.max(1) == 0;
            for run in 0..if timed { self.runs.max(1) } else { 1 } {
                for (sums, &depth) in sums.iter_mut().zip(&depths) {
                    let started = Instant::now();
                    let answer = self.rules.search(self.searcher, sums.algorithm, &batch, self.k, depth)?;
                    let time = started.elapsed();
                    if timed {
                        sums.times.push(time);
                    }
                    if run == 0 {
                        self.compare(&batch, &answer.hits[..fresh], sums);
                        sums.pairs += answer.stats.pairs;
                        sums.pruned += answer.stats.pruned;
                        sums.answered += size;
                    }
                }
                if progress(size).is_break() {
                    break 'batches;
                }
            }
        }
        Ok(sums.into_iter().map(Sums::means).collect())
    }

    fn compare(&self, batch: &Batch, found: &[Vec<Hit>], sums: &mut Sums) {
        for (&query, hits) in batch.indices.iter().zip(found) {
            let exact = self.truth.list(query);
            let target = match self.rules {
                Rules::Strict => self.queries.target(query).filter(|&id| self.counts(id)),
                Rules::EvalBatch { .. } => exact.first().copied(),
            };
            if let Some(target) = target {
                let rank = hits.iter().position(|hit| hit.id == target);
                sums.quality.add(rank.map(|index| index + 1));
            }
            sums.queries += 1;
            sums.recall += recall(hits, exact);
            if let Some(expected) = self.expected.and_then(|lists| lists.get(query)) {
                let depth = self.k.min(expected.len());
                *sums.agreement.get_or_insert(0.0) += recall(&hits[..depth.min(hits.len())], &expected[..depth]);
            }
        }
    }

    fn counts(&self, target: u64) -> bool {
        self.count_absent_targets || self.searcher.index().contains(target)
    }
}

/// A measurement that grows.
struct Sums {
    algorithm: Algorithm,
    times: Vec<Duration>,
    queries: usize,
    /// Queries of first runs, those that fill up the last batch included.
    answered: usize,
    pairs: u64,
    pruned: u64,
    quality: Quality,
    recall: f64,
    agreement: Option<f64>,
}

impl Sums {
    fn new(algorithm: Algorithm, quality: Quality) -> Sums {
        Sums {
            algorithm,
            times: Vec::new(),
            queries: 0,
            answered: 0,
            pairs: 0,
            pruned: 0,
            quality,
            recall: 0.0,
            agreement: None,
        }
    }

    fn means(mut self) -> Measurement {
        self.times.sort_unstable();
        let n = self.queries.max(1) as f64;
        Measurement {
            algorithm: self.algorithm,
            times: self.times,
            queries: self.queries,
            scored: self.pairs as f64 / self.answered.max(1) as f64,
            pruned: self.pruned as f64 / (self.pairs + self.pruned).max(1) as f64,
            quality: self.quality,
            recall: self.recall / n,
            agreement: self.agreement.map(|sum| sum / n),
        }
    }
}

/// The share of the ids of `exact` that are among `hits`; 1 if there are none.
fn recall(hits: &[Hit], exact: &[u64]) -> f64 {
    let found: HashSet<u64> = hits.iter().map(|hit| hit.id).collect();
    let n = exact.iter().filter(|id| found.contains(id)).count();
    if exact.is_empty() { 1.0 } else { n as f64 / exact.len() as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recall_counts_ids_not_ranks() {
        let hits = |ids: &[u64]| ids.iter().map(|&id| Hit { id, score: 0.0 }).collect::<Vec<_>>();
        assert_eq!(recall(&hits(&[3, 1, 9, 4]), &[1, 2, 3, 4]), 0.75);
        assert_eq!(recall(&hits(&[]), &[1]), 0.0);
        assert_eq!(recall(&hits(&[]), &[]), 1.0);
    }

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let mut sums = Sums::new(Algorithm::Exact, Quality::new(None));
        sums.times = (1..=101).rev().map(Duration::from_millis).collect();
        let measurement = sums.means();
        assert_eq!(measurement.percentile(0.5), Duration::from_millis(51));
        assert_eq!(measurement.percentile(0.99), Duration::from_millis(100));
        assert_eq!(measurement.mean(), Duration::from_millis(51));
    }
}
