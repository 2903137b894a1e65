//! Retrieval algorithms over an [`ItemIndex`]: from query embeddings to hits.
//!
//! # What a search tells
//! [`Answer::stats`] counts and times every search; [`Request::profile`] adds what each kernel of a GPU took. Whoever
//! has set up the `log` crate gets the same as lines at debug level, target `rails_wgpu::search`: one per stage
//! (`stage=scoring ms=1.234`), then one for the search (`search algorithm=exact batch=2 k=10 pairs=400 ... ms=1.250`). With
//! the feature `tracing` there is one span per search (`search`: algorithm, batch, k, pairs, ms, error) and in it one per
//! stage (`stage`: stage, ms).

mod algorithm;
mod builder;
mod candidates;
mod certificate;
#[cfg(feature = "gpu")]
mod on_gpu;
mod pipeline;
mod span;
mod stats;
mod tangent;

pub use crate::job::{Cancel, KernelTime, Stage, profiled};
pub use algorithm::Algorithm;
pub use builder::SearcherBuilder;
pub use certificate::Certificate;
#[cfg(feature = "gpu")]
pub use on_gpu::GpuAnswer;
pub use pipeline::pipelined;
pub use stats::Stats;

use std::sync::Arc;

use futures::channel::oneshot;

use crate::backend::{QueryBatch, ScoredPosition, Scorer, Similarity};
use crate::error::Parameter;
use crate::index::{Filter, ItemIndex, Snapshot};
use crate::{Error, Result, threads};
use candidates::{Candidates, FirstStage};
use stats::{Course, course};

/// One item found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// The item.
    pub id: u64,
    /// Its similarity to the query.
    pub score: f32,
}

/// A search for a batch of queries.
///
/// ```
/// use rails_wgpu::{Algorithm, Request};
///
/// let request = Request::new(Algorithm::Tangent { candidates: 1000 }, 10).with_excluded(&[&[17, 4]]).with_certify(true);
/// ```
#[derive(Clone, Copy)]
#[non_exhaustive]
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
    /// Ends the search before its time.
    pub cancel: Option<&'a Cancel>,
    /// Whether to ask a GPU what its kernels take ([`Answer::kernels`]). It then waits after every submission, and runs one
    /// kernel at a time: the search takes longer, other searches take as long as ever.
    pub profile: bool,
}

impl<'a> Request<'a> {
    /// The `k` best items, whatever they are.
    pub fn new(algorithm: Algorithm, k: usize) -> Request<'a> {
        Request { algorithm, k, excluded: &[], filter: None, certify: false, cancel: None, profile: false }
    }

    /// Sets [`Request::excluded`].
    #[must_use]
    pub fn with_excluded(self, excluded: &'a [&'a [u64]]) -> Request<'a> {
        Request { excluded, ..self }
    }

    /// Sets [`Request::filter`].
    #[must_use]
    pub fn with_filter(self, filter: impl Into<Option<&'a Filter>>) -> Request<'a> {
        Request { filter: filter.into(), ..self }
    }

    /// Sets [`Request::certify`].
    #[must_use]
    pub fn with_certify(self, certify: bool) -> Request<'a> {
        Request { certify, ..self }
    }

    /// Sets [`Request::cancel`].
    #[must_use]
    pub fn with_cancel(self, cancel: impl Into<Option<&'a Cancel>>) -> Request<'a> {
        Request { cancel: cancel.into(), ..self }
    }

    /// Sets [`Request::profile`].
    #[must_use]
    pub fn with_profile(self, profile: bool) -> Request<'a> {
        Request { profile, ..self }
    }
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Answer {
    /// The items of each query, by score descending, then id ascending.
    pub hits: Vec<Vec<Hit>>,
    /// One per query, if they were asked for.
    pub certificates: Vec<Certificate>,
    /// What it took.
    pub stats: Stats,
    /// What each kernel of a GPU took, by stage, if that was asked for and the device has timestamps; else nothing.
    pub kernels: Vec<KernelTime>,
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
    /// As [`Searcher::search`], or if the request was cancelled.
    pub fn answer(&self, queries: &QueryBatch, request: &Request) -> Result<Answer> {
        let n_queries = queries.embeddings.rows();
        let ((hits, certificates), stats, job) =
            course(request, n_queries, |course| self.stages(course, queries, request))?;
        Ok(Answer { hits, certificates, stats, kernels: job.kernels() })
    }

    fn stages(&self, course: &mut Course, queries: &QueryBatch, request: &Request) -> Result<Found> {
        let Request { algorithm, k, excluded, filter, certify, .. } = *request;
        let snapshot = self.index.snapshot();
        let (n_items, n_queries) = (snapshot.len(), queries.embeddings.rows());
        if k == 0 || k > n_items {
            return Err(Error::argument(Parameter::K, format!("1..={n_items} (the number of items)"), k));
        }
        if !excluded.is_empty() && excluded.len() != n_queries {
            return Err(Error::argument(
                Parameter::Exclusions,
                format!("none, or {n_queries} lists of ids"),
                excluded.len(),
            ));
        }
        let excluded = snapshot.exclude(excluded, filter);
        let scan = |scorer| snapshot.scan(scorer, queries, k, &excluded).map(|hits| (hits, 0));
        let everything = match (algorithm, snapshot.similarity()) {
            (Algorithm::ExactPruned, Some(_)) => {
                Some(course.stage(Stage::Scoring, || snapshot.scan_pruned(queries, k, &excluded))?)
            }
            (Algorithm::Exact, Some(_)) => Some(course.stage(Stage::Scoring, || scan(Scorer::Mol))?),
            (Algorithm::Exact | Algorithm::ExactPruned | Algorithm::Mips, _) => {
                Some(course.stage(Stage::Scoring, || scan(Scorer::Dot))?)
            }
            _ => None,
        };
        if let Some((found, pruned)) = everything {
            course.stats.pruned = pruned;
            course.stats.pairs = (n_items * n_queries) as u64 - pruned;
            let named = || Ok(found.into_iter().map(|hits| named(&snapshot, hits)).collect());
            let hits = course.stage(Stage::Selection, named)?;
            return Ok((hits, vec![Certificate::Exact; if certify { n_queries } else { 0 }]));
        }

        let similarity = similarity(&snapshot, algorithm)?;
        let stage = course.stage(Stage::QuerySide, || FirstStage::new(&snapshot, similarity, queries, &excluded))?;
        let candidates = course.stage(Stage::FirstStage, || stage.collect(algorithm, k))?;
        course.stats.candidates = candidates.iter().map(|list| list.len() as u64).sum();
        let scores = course.stage(Stage::Scoring, || snapshot.rescore(Scorer::Mol, queries, &candidates))?;
        course.stats.pairs = course.stats.candidates;
        let hits: Vec<Vec<Hit>> = course.stage(Stage::Selection, || {
            let pairs = candidates.iter().zip(scores);
            Ok(pairs.map(|(list, scores)| named(&snapshot, best(&snapshot, list, scores, k))).collect())
        })?;
        let certificates = match certify {
            true => course.stage(Stage::Certifying, || {
                certificate::certify(&snapshot, queries, k, &hits, &candidates, &excluded)
            })?,
            false => Vec::new(),
        };
        Ok((hits, certificates))
    }

    /// [`Searcher::search`] on a worker thread, for asynchronous programs. It begins at once; dropping the future cancels it,
    /// and the worker is free after the chunk of items, or the submission to a GPU, that it is at.
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
        let dropped = CancelOnDrop::default();
        let cancel = dropped.0.clone();
        threads::spawn(move || {
            let lists: Vec<&[u64]> = excluded.iter().map(Vec::as_slice).collect();
            let request = Request { excluded: &lists, cancel: Some(&cancel), ..Request::new(algorithm, k) };
            let hits = searcher.answer(&queries, &request).map(|answer| answer.hits);
            // Whoever sees the result, or its absence, finds the searcher unused.
            drop(searcher);
            // Nobody waits any more if the future was dropped.
            let _ = sender.send(hits);
        });
        async move {
            let _dropped = dropped;
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

/// Hits and certificates.
type Found = (Vec<Vec<Hit>>, Vec<Certificate>);

/// Cancels what nobody waits for any more.
#[derive(Default)]
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

fn similarity(snapshot: &Snapshot, algorithm: Algorithm) -> Result<&Similarity> {
    let missing = || {
        let found = format!("`{algorithm}` on an index without");
        Error::argument(Parameter::Algorithm, "`exact` or `mips`, or an index with Mixture-of-Logits", found)
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
