//! One span per search and one per stage: lines of `log` at debug level, and spans of `tracing` if that feature is on.

use std::time::Duration;

use super::{Request, Stats};
use crate::Error;
use crate::context::Stage;

/// Where log lines and spans of searches come from.
const TARGET: &str = "rails_wgpu::search";

/// A search, or a stage of one, that is going on.
pub(super) struct Span {
    #[cfg(feature = "tracing")]
    span: tracing::Span,
}

impl Span {
    /// Of a search of `batch` queries.
    #[cfg_attr(not(feature = "tracing"), allow(unused_variables, reason = "only spans know it from the start"))]
    pub fn of_search(request: &Request, batch: usize) -> Span {
        Span {
            #[cfg(feature = "tracing")]
            span: tracing::debug_span!(
                target: TARGET,
                "search",
                algorithm = %request.algorithm,
                batch,
                k = request.k,
                pairs = tracing::field::Empty,
                ms = tracing::field::Empty,
                error = tracing::field::Empty,
            ),
        }
    }

    /// Of a stage of the search whose span this thread is in.
    #[cfg_attr(not(feature = "tracing"), allow(unused_variables, reason = "only spans know it from the start"))]
    pub fn of_stage(stage: Stage) -> Span {
        Span {
            #[cfg(feature = "tracing")]
            span: tracing::debug_span!(target: TARGET, "stage", stage = %stage, ms = tracing::field::Empty),
        }
    }

    /// Does `work` within the span.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        #[cfg(feature = "tracing")]
        let _entered = self.span.enter();
        work()
    }

    /// Says what a stage took.
    pub fn end_stage(&self, stage: Stage, took: Duration) {
        let ms = took.as_secs_f64() * 1e3;
        #[cfg(feature = "tracing")]
        self.span.record("ms", ms);
        log::debug!(target: TARGET, "stage={stage} ms={ms:.3}");
    }

    /// Says what a search took.
    pub fn end_search(&self, (request, batch): (&Request, usize), stats: &Stats, error: Option<&Error>) {
        let ms = stats.total.as_secs_f64() * 1e3;
        let Stats { pairs, pruned, candidates, bytes_read, .. } = stats;
        let Request { algorithm, k, .. } = request;
        #[cfg(feature = "tracing")]
        {
            self.span.record("pairs", pairs).record("ms", ms);
            error.inspect(|error| {
                self.span.record("error", tracing::field::display(error));
            });
        }
        let error = error.map(|error| format!(" error=\"{error}\"")).unwrap_or_default();
        log::debug!(
            target: TARGET,
            "search algorithm={algorithm} batch={batch} k={k} pairs={pairs} pruned={pruned} candidates={candidates} \
             bytes={bytes_read} ms={ms:.3}{error}"
        );
    }
}
