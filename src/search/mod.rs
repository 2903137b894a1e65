//! Retrieval algorithms over an [`ItemIndex`]: from query embeddings to hits.

mod algorithm;
mod candidates;
mod tangent;

pub use algorithm::Algorithm;
pub use tangent::logit_gradient;

use std::sync::Arc;

use futures::channel::oneshot;

use crate::backend::{Exclusions, QueryBatch, ScoredPosition, Scorer};
use crate::index::ItemIndex;
use crate::model::Mol;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// One item found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// The item.
    pub id: u64,
    /// Its similarity to the query.
    pub score: f32,
}

/// Answers queries from an index.
pub struct Searcher {
    index: ItemIndex,
}

impl Searcher {
    /// A searcher over `index`.
    pub fn new(index: ItemIndex) -> Searcher {
        Searcher { index }
    }

    /// The index searched.
    pub fn index(&self) -> &ItemIndex {
        &self.index
    }

    /// The `k` best items of each query that the algorithm finds, by score descending, then id ascending; ids are
    /// unique. `excluded` names items to leave out, one list per query (or no list at all). A result is shorter than `k`
    /// only where fewer items are left.
    ///
    /// # Errors
    /// If `k` is not in 1..=N, shapes do not fit, the algorithm needs a Mixture-of-Logits index and this is none, or the
    /// device fails.
    pub fn search(
        &self,
        algorithm: Algorithm,
        queries: &QueryBatch,
        k: usize,
        excluded: &[&[u64]],
    ) -> Result<Vec<Vec<Hit>>> {
        let excluded = self.exclusions(excluded);
        let device = self.index.device();
        let found = match algorithm {
            Algorithm::Exact if self.index.mol().is_some() => device.scan(Scorer::Mol, queries, k, &excluded)?,
            Algorithm::Exact | Algorithm::Mips => device.scan(Scorer::Dot, queries, k, &excluded)?,
            _ => self.rescored(algorithm, queries, k, &excluded)?,
        };
        let ids = self.index.ids();
        let hits = |found: Vec<ScoredPosition>| {
            found.into_iter().map(|hit| Hit { id: ids[hit.position as usize], score: hit.score }).collect()
        };
        Ok(found.into_iter().map(hits).collect())
    }

    /// [`Searcher::search`] on a worker thread, for asynchronous programs. It begins at once; dropping the future drops
    /// the result.
    ///
    /// # Errors
    /// As [`Searcher::search`].
    pub fn search_async(
        self: &Arc<Self>,
        algorithm: Algorithm,
        queries: QueryBatch,
        k: usize,
        excluded: Vec<Vec<u64>>,
    ) -> impl Future<Output = Result<Vec<Vec<Hit>>>> + Send + 'static {
        let (sender, receiver) = oneshot::channel();
        let searcher = Arc::clone(self);
        rayon::spawn(move || {
            let lists: Vec<&[u64]> = excluded.iter().map(Vec::as_slice).collect();
            // Nobody waits any more if the future was dropped.
            let _ = sender.send(searcher.search(algorithm, &queries, k, &lists));
        });
        async move {
            let ended = |_| Error::Device { device: "worker".to_string(), what: "ended without an answer".to_string() };
            receiver.await.map_err(ended)?
        }
    }

    /// The candidates that `algorithm` would rescore, per query: ids, ascending, each once.
    ///
    /// # Errors
    /// If the algorithm collects none, or as [`Searcher::search`].
    pub fn candidates(&self, algorithm: Algorithm, queries: &QueryBatch, excluded: &[&[u64]]) -> Result<Vec<Vec<u64>>> {
        let excluded = self.exclusions(excluded);
        let positions = candidates::collect(&self.index, self.mol(algorithm)?, algorithm, queries, 1, &excluded)?;
        let ids = self.index.ids();
        let id_list = |list: Vec<u32>| list.into_iter().map(|position| ids[position as usize]).collect();
        Ok(positions.into_iter().map(id_list).collect())
    }

    fn exclusions(&self, lists: &[&[u64]]) -> Exclusions {
        match lists {
            [] => Exclusions::default(),
            lists => self.index.exclusions(lists.iter().copied()),
        }
    }

    fn mol(&self, algorithm: Algorithm) -> Result<&Mol<Tensor>> {
        let missing = || {
            let found = format!("`{algorithm}` on an index without");
            Error::argument("algorithm", "`exact` or `mips`, or an index with Mixture-of-Logits", found)
        };
        self.index.mol().ok_or_else(missing)
    }

    /// Candidates, rescored with the full similarity, the best `k` in order.
    fn rescored(
        &self,
        algorithm: Algorithm,
        queries: &QueryBatch,
        k: usize,
        excluded: &Exclusions,
    ) -> Result<Vec<Vec<ScoredPosition>>> {
        let n_items = self.index.len();
        if k == 0 || k > n_items {
            return Err(Error::argument("k", format!("1..={n_items} (the number of items)"), k));
        }
        let lists = candidates::collect(&self.index, self.mol(algorithm)?, algorithm, queries, k, excluded)?;
        let scores = self.index.device().rescore(queries, &lists)?;
        let best = |(positions, scores): (Vec<u32>, Vec<f32>)| {
            let pairs = positions.into_iter().zip(scores);
            let mut hits: Vec<_> = pairs.map(|(position, score)| ScoredPosition { position, score }).collect();
            let order =
                |a: &ScoredPosition, b: &ScoredPosition| b.score.total_cmp(&a.score).then(a.position.cmp(&b.position));
            if hits.len() > k {
                hits.select_nth_unstable_by(k - 1, order);
                hits.truncate(k);
            }
            hits.sort_unstable_by(order);
            hits
        };
        Ok(lists.into_iter().zip(scores).map(best).collect())
    }
}
