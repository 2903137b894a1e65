//! Leave-one-out evaluation: encode each user's history, search, and find the rank of the last event. And the quality of results
//! by judgments of relevance: [`GradedQuality`].

mod graded;
mod protocol;

pub use graded::{GradedQuality, JudgedRanking};
pub use protocol::Protocol;

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::attributes::Condition;
use crate::dataset::Sequence;
use crate::index::RowIds;
use crate::metrics::Quality;
use crate::search::{Algorithm, HistoryEncoder, Hit, Searcher, pipelined};
use crate::sequence::History;
use crate::{Error, Result};

/// What an evaluation found out about one algorithm.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// Ranks of all targets.
    pub quality: Quality,
    /// Time spent encoding histories; shared by all algorithms of a run. Where batches overlap, this and the next are shares
    /// of the time that passed, in proportion to what each batch saw.
    pub encode_time: Duration,
    /// Time spent searching.
    pub search_time: Duration,
}

impl Evaluation {
    /// Queries encoded per second.
    pub fn encode_qps(&self) -> f64 {
        self.quality.len() as f64 / self.encode_time.as_secs_f64()
    }

    /// Queries searched per second.
    pub fn search_qps(&self) -> f64 {
        self.quality.len() as f64 / self.search_time.as_secs_f64()
    }
}

/// What to evaluate, and how.
pub struct Evaluator<'a> {
    /// The items to be found, with the encoder of their model.
    pub searcher: &'a Searcher,
    /// What items must meet to be found: one condition for all users, or none.
    pub conditions: &'a [Condition],
    /// How seen items and misses are treated.
    pub protocol: Protocol,
    /// Items per result; see [`Protocol::depth`].
    pub k: usize,
    /// Users per batch.
    pub batch_size: usize,
}

impl Evaluator<'_> {
    /// Evaluates `algorithms` on `sequences`, each of at least two events: the last one is the target, those before
    /// it are the history. `progress` is called with the number of users done after each batch, and ends the evaluation with
    /// [`ControlFlow::Break`]: the results are then of these users.
    ///
    /// # Errors
    /// If the searcher has no encoder, its index no ids for the rows of the model ([`ItemIndex::row_ids`](crate::index::ItemIndex::row_ids)), a sequence has no history, an id is beyond the item table, or the device fails.
    pub fn run(
        &self,
        algorithms: &[Algorithm],
        sequences: &[Sequence],
        mut progress: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Vec<Evaluation>> {
        let (encoder, rows) = (self.searcher.encoder()?, self.searcher.index().row_ids()?);
        let quality = Quality::new(self.protocol.miss_rank());
        let empty = |&algorithm| Evaluation {
            algorithm,
            quality: quality.clone(),
            encode_time: Duration::ZERO,
            search_time: Duration::ZERO,
        };
        let mut evaluations: Vec<Evaluation> = algorithms.iter().map(empty).collect();
        let (mut done, mut busy, started) = (0, Duration::ZERO, Instant::now());
        let mut is_ended = false;
        let batches = sequences.chunks(self.batch_size.max(1));
        let ran = pipelined(
            self.searcher.in_flight(),
            batches,
            |users| self.batch(encoder, &rows, algorithms, users),
            |batch: Batch| {
                busy += batch.encode_time;
                for (evaluation, (hits, time)) in evaluations.iter_mut().zip(batch.found) {
                    busy += time;
                    evaluation.search_time += time;
                    evaluation.encode_time += batch.encode_time;
                    for (user, hits) in batch.users.iter().zip(&hits) {
                        let target = user.item_ids.last().map(|&row| rows.id(row));
                        evaluation
                            .quality
                            .add(hits.iter().position(|hit| Some(hit.id) == target).map(|index| index + 1));
                    }
                }
                done += batch.users.len();
                is_ended = progress(done).is_break();
                if is_ended { Err(Error::Cancelled) } else { Ok(()) }
            },
        );
        if !is_ended {
            ran?;
        }
        // Two batches that share a device for a second see a second each.
        let share = (started.elapsed().as_secs_f64() / busy.as_secs_f64().max(f64::MIN_POSITIVE)).min(1.0);
        for Evaluation { encode_time, search_time, .. } in &mut evaluations {
            (*encode_time, *search_time) = (encode_time.mul_f64(share), search_time.mul_f64(share));
        }
        Ok(evaluations)
    }

    /// Encodes the histories of some users, and searches with each algorithm.
    fn batch<'u>(
        &self,
        encoder: &HistoryEncoder,
        rows: &RowIds,
        algorithms: &[Algorithm],
        users: &'u [Sequence],
    ) -> Result<Batch<'u>> {
        let histories: Vec<History> = users.iter().map(history_of).collect();
        let started = Instant::now();
        let queries = encoder.encode(&histories)?;
        let encode_time = started.elapsed();
        let config = encoder.config();
        let seen = histories.iter().map(|history| self.protocol.seen(history, config, rows));
        let seen: Vec<Vec<u64>> = seen.collect();
        let search = |&algorithm: &Algorithm| {
            let started = Instant::now();
            let hits =
                self.protocol.search((self.searcher, self.conditions), algorithm, &queries, self.k, config, &seen)?;
            Ok((hits, started.elapsed()))
        };
        Ok(Batch { users, encode_time, found: algorithms.iter().map(search).collect::<Result<_>>()? })
    }
}

/// What was found for some users.
struct Batch<'u> {
    users: &'u [Sequence],
    encode_time: Duration,
    /// By each algorithm, and how long it took.
    found: Vec<(Vec<Vec<Hit>>, Duration)>,
}

/// Everything before the last event; the time of the request is that of the last event, as in the reference.
pub fn history_of(sequence: &Sequence) -> History<'_> {
    let n = sequence.item_ids.len().saturating_sub(1);
    History {
        user_id: sequence.user_id,
        item_ids: &sequence.item_ids[..n],
        timestamps: &sequence.timestamps[..n],
        now: sequence.timestamps.last().copied().unwrap_or(0),
    }
}
