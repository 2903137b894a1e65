//! The way of a search through its stages: what each takes is measured, and told to whoever listens.

use std::time::Instant;

use super::Request;
use super::span::Span;
use super::stats::Stats;
use crate::Result;
use crate::job::{Job, Stage};

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
