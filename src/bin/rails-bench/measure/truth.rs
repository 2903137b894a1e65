//! The lists that approximate ones are compared with.

use std::ops::ControlFlow;

use super::{QuerySet, Rules};
use rails_wgpu::Result;
use rails_wgpu::search::{Algorithm, Searcher};

/// Queries answered at a time.
const ANSWERED_AT_ONCE: usize = 64;

/// The exact results of all queries of a set.
pub struct Truth {
    lists: Vec<Vec<u64>>,
}

impl Truth {
    /// Answers all `queries` with [`Algorithm::Exact`]. `progress` is called with the number of queries done and ends the
    /// work with [`ControlFlow::Break`]; the result is then `None`.
    ///
    /// # Errors
    /// As [`Searcher::search`].
    pub fn compute(
        searcher: &Searcher,
        queries: &QuerySet,
        rules: Rules,
        k: usize,
        progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Option<Truth>> {
        let mut lists: Vec<Vec<u64>> = Vec::with_capacity(queries.len());
        while lists.len() < queries.len() {
            let batch = queries.batch(lists.len(), ANSWERED_AT_ONCE.min(queries.len() - lists.len()));
            let depth = rules.depth(searcher, Algorithm::Exact, &batch, k)?;
            let found = rules.search(searcher, Algorithm::Exact, &batch, k, depth)?.hits;
            lists.extend(found.iter().map(|hits| hits.iter().map(|hit| hit.id).collect()));
            if progress(lists.len()).is_break() {
                return Ok(None);
            }
        }
        Ok(Some(Truth { lists }))
    }

    /// The exact ids of query `index`, the best first.
    pub fn list(&self, index: usize) -> &[u64] {
        &self.lists[index]
    }
}
