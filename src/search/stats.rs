//! What a search took, and how it is told to whoever listens.

use std::time::{Duration, Instant};

use super::Request;
use super::span::Span;
use crate::Result;
use crate::job::{Job, Stage};

/// What a search took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// (query, item) pairs scored with the full similarity.
    pub pairs: u64,
    /// Pairs that [`Algorithm::ExactPruned`](super::Algorithm::ExactPruned) left out.
    pub pruned: u64,
    /// (query, item) pairs that the first stage left to be scored; 0 for a scan of everything.
    pub candidates: u64,
    /// Bytes of item tables read, an estimate: one reading of each table that a stage scans, for the whole batch, and the
    /// rows of every candidate. Caches save some of them; a GPU that has to cut the batch into slices reads a
    /// table once per slice. The sample of the tangent is left out.
    pub bytes_read: u64,
    /// Time of the query side; for a scan of everything it is part of the scoring.
    pub query_side: Duration,
    /// Time of the first stage.
    pub first_stage: Duration,
    /// Time of the scan with, or rescoring by, the full similarity. A scan keeps the best as it goes, and that is part of it.
    pub scoring: Duration,
    /// Time of what the host does with scores: the best k of the candidates, and their ids.
    pub selection: Duration,
    /// Time of the certificates.
    pub certifying: Duration,
    /// Time of all together, checks of arguments and exclusions included.
    pub total: Duration,
}

impl Stats {
    /// Time of one stage.
    pub fn time(&self, stage: Stage) -> Duration {
        match stage {
            Stage::QuerySide => self.query_side,
            Stage::FirstStage => self.first_stage,
            Stage::Scoring => self.scoring,
            Stage::Selection => self.selection,
            Stage::Certifying => self.certifying,
        }
    }

    fn place(&mut self, stage: Stage) -> &mut Duration {
        match stage {
            Stage::QuerySide => &mut self.query_side,
            Stage::FirstStage => &mut self.first_stage,
            Stage::Scoring => &mut self.scoring,
            Stage::Selection => &mut self.selection,
            Stage::Certifying => &mut self.certifying,
        }
    }
}

/// Leads a search through its stages.
pub(super) struct Course<'a> {
    pub job: &'a Job,
    pub stats: Stats,
}

impl Course<'_> {
    /// Does the work of a stage, and of no stage any more once the search is cancelled.
    ///
    /// # Errors
    /// Those of `work`, or if the search was cancelled.
    pub fn stage<T>(&mut self, stage: Stage, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.job.check()?;
        self.job.enter(stage);
        let (span, started) = (Span::of_stage(stage), Instant::now());
        let done = span.run(work);
        let took = started.elapsed();
        *self.stats.place(stage) += took;
        span.end_stage(stage, took);
        self.job.check()?;
        done
    }
}

/// Runs a whole search of `batch` queries as a job of its own; the job comes back with what it has gathered.
///
/// # Errors
/// Those of `work`.
pub(super) fn course<T>(
    request: &Request,
    batch: usize,
    work: impl FnOnce(&mut Course) -> Result<T>,
) -> Result<(T, Stats, Job)> {
    let job = Job::new(request.cancel.cloned(), request.profile);
    let (span, started) = (Span::of_search(request, batch), Instant::now());
    let mut course = Course { job: &job, stats: Stats::default() };
    let done = span.run(|| job.run(|| work(&mut course)));
    let stats = Stats { bytes_read: job.bytes(), total: started.elapsed(), ..course.stats };
    span.end_search((request, batch), &stats, done.as_ref().err());
    Ok((done?, stats, job))
}
