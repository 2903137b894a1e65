//! The way of a search through its stages: what each takes is measured, and told to whoever listens.

use std::time::Instant;

use super::Request;
use super::span::Span;
use super::stats::Stats;
use crate::Result;
use crate::context::{SearchContext, Stage};

/// Leads a search through its stages.
pub(super) struct Course<'a> {
    pub context: &'a SearchContext,
    pub stats: Stats,
}

impl Course<'_> {
    /// Does the work of a stage, and of no stage any more once the search is cancelled.
    ///
    /// # Errors
    /// Those of `work`, or if the search was cancelled.
    pub fn stage<T>(&mut self, stage: Stage, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.context.check()?;
        self.context.enter(stage);
        let (span, started) = (Span::of_stage(stage), Instant::now());
        let done = span.run(work);
        let took = started.elapsed();
        *self.stats.place(stage) += took;
        span.end_stage(stage, took);
        self.context.check()?;
        done
    }
}

/// Runs a whole search of `batch` queries in a context of its own, which comes back with what it has gathered.
///
/// # Errors
/// Those of `work`.
pub(super) fn course<T>(
    request: &Request,
    batch: usize,
    work: impl FnOnce(&mut Course) -> Result<T>,
) -> Result<(T, Stats, SearchContext)> {
    let context = SearchContext::new(request.cancel.cloned(), request.profile);
    let (span, started) = (Span::of_search(request, batch), Instant::now());
    let mut course = Course { context: &context, stats: Stats::default() };
    let done = span.run(|| work(&mut course));
    let (submissions, readbacks) = context.submissions_and_readbacks();
    let stats = Stats { bytes_read: context.bytes(), submissions, readbacks, total: started.elapsed(), ..course.stats };
    span.end_search((request, batch), &stats, done.as_ref().err());
    Ok((done?, stats, context))
}
