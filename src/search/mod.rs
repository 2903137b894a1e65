//! Retrieval algorithms over an [`ItemIndex`]: from query embeddings to hits.

mod algorithm;
mod builder;
mod candidates;
mod certificate;
#[cfg(feature = "gpu")]
mod on_gpu;
mod tangent;

pub use algorithm::Algorithm;
pub use builder::SearcherBuilder;
pub use certificate::Certificate;
#[cfg(feature = "gpu")]
pub use on_gpu::GpuAnswer;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::channel::oneshot;

use crate::backend::{QueryBatch, ScoredPosition, Scorer, Similarity};
use crate::index::{Filter, ItemIndex, Snapshot};
use crate::{Error, Result};
use candidates::{Candidates, FirstStage};

/// One item found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// The item.
    pub id: u64,
    /// Its similarity to the query.
    pub score: f32,
}

/// A search for a batch of queries.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// How.
    pub algorithm: Algorithm,
    /// Items per query.
    pub k: usize,
    /// Ids that must not be found: one list per query, or no list at all.
    pub excluded: &'a [&'a [u64]],
    /// Ids that any query may find; `None`: all.
    pub filter: Option<&'a Filter>,
    /// Whether to find out how far the result can be from the exact one, which takes another scan of the components.
    pub certify: bool,
}

impl Request<'_> {
    /// The `k` best items, whatever they are.
    pub fn new(algorithm: Algorithm, k: usize) -> Request<'static> {
        Request { algorithm, k, excluded: &[], filter: None, certify: false }
    }
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The items of each query, by score descending, then id ascending.
    pub hits: Vec<Vec<Hit>>,
    /// One per query, if they were asked for.
    pub certificates: Vec<Certificate>,
    /// What it took.
    pub stats: Stats,
}

/// What a search took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stats {
    /// (query, item) pairs scored with the full similarity.
    pub pairs: u64,
    /// Pairs that [`Algorithm::ExactPruned`] left out.
    pub pruned: u64,
    /// Time of the first stage.
    pub first_stage: Duration,
    /// Time of the scan with, or rescoring by, the full similarity.
    pub scoring: Duration,
    /// Time of the certificates.
    pub certifying: Duration,
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

    /// The index searched. It may change at any time; a search works on the version it began with.
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
        Ok(self.answer(queries, &Request { excluded, ..Request::new(algorithm, k) })?.hits)
    }

    /// Answers `request` for a batch of queries.
    ///
    /// # Errors
    /// As [`Searcher::search`].
    pub fn answer(&self, queries: &QueryBatch, request: &Request) -> Result<Answer> {
        let Request { algorithm, k, excluded, filter, certify } = *request;
        let snapshot = self.index.snapshot();
        let (n_items, n_queries) = (snapshot.len(), queries.embeddings.rows());
        if k == 0 || k > n_items {
            return Err(Error::argument("k", format!("1..={n_items} (the number of items)"), k));
        }
        if !excluded.is_empty() && excluded.len() != n_queries {
            return Err(Error::argument("exclusions", format!("none, or {n_queries} lists of ids"), excluded.len()));
        }
        let excluded = snapshot.exclude(excluded, filter);
        let started = Instant::now();
        let mut stats = Stats::default();
        let everything = match (algorithm, snapshot.similarity()) {
            (Algorithm::ExactPruned, Some(_)) => {
                let (hits, pruned) = snapshot.scan_pruned(queries, k, &excluded)?;
                stats.pruned = pruned;
                Some(hits)
            }
            (Algorithm::Exact, Some(_)) => Some(snapshot.scan(Scorer::Mol, queries, k, &excluded)?),
            (Algorithm::Exact | Algorithm::ExactPruned | Algorithm::Mips, _) => {
                Some(snapshot.scan(Scorer::Dot, queries, k, &excluded)?)
            }
            _ => None,
        };
        if let Some(found) = everything {
            stats.pairs = (n_items * n_queries) as u64 - stats.pruned;
            stats.scoring = started.elapsed();
            let hits: Vec<_> = found.into_iter().map(|hits| named(&snapshot, hits)).collect();
            let certificates = vec![Certificate::Exact; if certify { n_queries } else { 0 }];
            return Ok(Answer { hits, certificates, stats });
        }

        let stage = FirstStage::new(&snapshot, similarity(&snapshot, algorithm)?, queries, &excluded)?;
        let candidates = stage.collect(algorithm, k)?;
        stats.first_stage = started.elapsed();
        let started = Instant::now();
        let scores = snapshot.rescore(Scorer::Mol, queries, &candidates)?;
        stats.pairs = candidates.iter().map(|list| list.len() as u64).sum();
        let pairs = candidates.iter().zip(scores);
        let hits: Vec<_> = pairs.map(|(list, scores)| named(&snapshot, best(&snapshot, list, scores, k))).collect();
        stats.scoring = started.elapsed();
        let started = Instant::now();
        let certificates = match certify {
            true => certificate::certify(&snapshot, queries, k, &hits, &candidates, &excluded)?,
            false => Vec::new(),
        };
        stats.certifying = started.elapsed();
        Ok(Answer { hits, certificates, stats })
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
        let snapshot = self.index.snapshot();
        let excluded = snapshot.exclude(excluded, None);
        let stage = FirstStage::new(&snapshot, similarity(&snapshot, algorithm)?, queries, &excluded)?;
        let id_list = |list: Vec<u32>| {
            let mut ids: Vec<u64> = list.into_iter().map(|position| snapshot.id(position)).collect();
            ids.sort_unstable();
            ids
        };
        Ok(stage.collect(algorithm, 1)?.into_iter().map(id_list).collect())
    }
}

fn similarity(snapshot: &Snapshot, algorithm: Algorithm) -> Result<&Similarity> {
    let missing = || {
        let found = format!("`{algorithm}` on an index without");
        Error::argument("algorithm", "`exact` or `mips`, or an index with Mixture-of-Logits", found)
    };
    snapshot.similarity().ok_or_else(missing)
}

/// The best `k` candidates, in order.
fn best(snapshot: &Snapshot, positions: &[u32], scores: Vec<f32>, k: usize) -> Vec<ScoredPosition> {
    let pairs = positions.iter().zip(scores);
    let mut hits: Vec<_> = pairs.map(|(&position, score)| ScoredPosition { position, score }).collect();
    if hits.len() > k {
        let (_, kth, _) = hits.select_nth_unstable_by(k - 1, |a, b| b.score.total_cmp(&a.score));
        // Ties with the k-th are told apart by their ids.
        let kth = kth.score;
        hits.retain(|hit| hit.score >= kth);
    }
    snapshot.sort(&mut hits);
    hits.truncate(k);
    hits
}

fn named(snapshot: &Snapshot, hits: Vec<ScoredPosition>) -> Vec<Hit> {
    hits.into_iter().map(|hit| Hit { id: snapshot.id(hit.position), score: hit.score }).collect()
}
