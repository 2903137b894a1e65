//! Retrieval algorithms over an [`ItemIndex`]: from query embeddings to hits.
//!
//! # What a search tells
//! [`Answer::stats`] counts and times every search; [`Request::profile`] adds what each kernel of a GPU took. Whoever
//! has set up the `log` crate gets the same as lines at debug level, target `rails_wgpu::search`: one per stage
//! (`stage=scoring ms=1.234`), then one for the search (`search algorithm=exact batch=2 k=10 pairs=400 ... ms=1.250`). With
//! the feature `tracing` there is one span per search (`search`: algorithm, batch, k, pairs, ms, error) and in it one per
//! stage (`stage`: stage, ms).

mod algorithm;
mod answer;
mod approximate;
mod builder;
mod candidates;
mod certificate;
mod course;
mod encode;
mod first_stage;
mod fusion;
mod groups;
mod history_encoder;
mod hit;
mod matching;
#[cfg(feature = "gpu")]
mod on_gpu;
mod pipeline;
mod request;
mod span;
mod stats;
mod tangent;

pub use crate::context::{Cancel, KernelTime, Stage, profiled};
pub use algorithm::Algorithm;
pub use answer::Answer;
pub use builder::SearcherBuilder;
pub use certificate::Certificate;
pub use fusion::ScoreFusion;
pub use history_encoder::HistoryEncoder;
pub use hit::Hit;
#[cfg(feature = "gpu")]
pub use on_gpu::GpuAnswer;
pub use pipeline::pipelined;
pub use request::Request;
pub use stats::Stats;

use std::cmp::Ordering;
use std::sync::{Arc, Once, OnceLock};

use futures::channel::oneshot;

use crate::attributes::Condition;
use crate::backend::{Columns, PreparedQueries, QueryBatch, ScoredPosition, Scorer, SearchContext};
use crate::error::Parameter;
use crate::index::{Excluded, ItemIndex, Segment, Snapshot};
use crate::{Error, Result, threads};
use approximate::approximate;
use candidates::Candidates;
use course::{Course, course};
use first_stage::FirstStage;
use groups::Groups;

/// Answers queries from an index. Many threads may share one.
///
/// Made by [`Searcher::builder`]. [`Searcher::search`] returns the best items of each query, [`Searcher::answer`] takes filters and
/// tells costs, [`Searcher::encode`] makes queries of histories.
///
/// ```
/// use rails_wgpu::{Algorithm, Dtype, QueryBatch, Request, Searcher, Tensor};
///
/// # fn main() -> rails_wgpu::Result<()> {
/// // Four items of width 2.
/// let items = Tensor::new([4, 2], vec![1.0, 0.0, 0.0, 1.0, 0.6, 0.8, -1.0, 0.0])?;
/// let builder = Searcher::builder().embeddings(&[10, 20, 30, 40], &items);
/// let searcher = builder.dtype(Dtype::F16).build()?;
///
/// // The two best items of each query, but not item 30.
/// let queries = QueryBatch::new(Tensor::from_rows([[0.6, 0.8], [1.0, 0.1]]));
/// let request = Request::new(Algorithm::Exact, 2).with_excluded(&[&[30], &[30]]);
/// let answer = searcher.answer(&queries, &request)?;
/// assert_eq!((answer.hits[0][0].id, answer.hits[1][0].id), (20, 10));
/// println!("{} pairs scored in {:?}", answer.stats.pairs, answer.stats.total);
///
/// // Items come and go while others search.
/// searcher.index().add(&[50], &Tensor::from_rows([[2.0, 2.0]]))?;
/// assert_eq!(searcher.search(Algorithm::Exact, &queries, 1, &[])?[0][0].id, 50);
/// # Ok(())
/// # }
/// ```
pub struct Searcher {
    index: ItemIndex,
    /// Says once that there are no inverted lists, or centroids.
    mentioned: Once,
    /// Of the model, as soon as it is known.
    encoder: OnceLock<HistoryEncoder>,
}

impl Searcher {
    /// A searcher over `index`.
    pub fn new(index: ItemIndex) -> Searcher {
        Searcher { index, mentioned: Once::new(), encoder: OnceLock::new() }
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
    /// If `k` is 0, shapes do not fit, a query is so large that scores overflow, the algorithm needs a Mixture-of-Logits index
    /// and this is none, or the device fails; [`Error::NotScored`] if items of the index cannot be scored.
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
        let n_queries = queries.len();
        if n_queries == 0 {
            return Ok(Answer::default());
        }
        let snapshot = self.index.snapshot();
        let ((hits, certificates), stats, context) =
            course(request, n_queries, |course| self.stages(course, &snapshot, queries, request))?;
        let string = |hit: &Hit| snapshot.string_id(hit.id).unwrap_or_default().to_string();
        let string_ids = match self.index.has_string_ids() {
            true => hits.iter().map(|hits| hits.iter().map(string).collect()).collect(),
            false => Vec::new(),
        };
        Ok(Answer { hits, string_ids, certificates, stats, kernels: context.kernels() })
    }

    fn stages(
        &self,
        course: &mut Course,
        snapshot: &Snapshot,
        queries: &QueryBatch,
        request: &Request,
    ) -> Result<Found> {
        let Request { k, excluded, fusion, certify, .. } = *request;
        let (n_items, n_queries) = (snapshot.len(), queries.len());
        snapshot.check_queries(queries)?;
        if k == 0 {
            return Err(Error::argument(Parameter::K, "at least 1", k));
        }
        // An index may lose items at any time: that must not make a request wrong.
        let k = k.min(n_items);
        if !excluded.is_empty() && excluded.len() != n_queries {
            return Err(Error::argument(
                Parameter::Exclusions,
                format!("none, or {n_queries} lists of ids"),
                excluded.len(),
            ));
        }
        if n_items == 0 {
            return Ok((vec![Vec::new(); n_queries], vec![Certificate::Exact; if certify { n_queries } else { 0 }]));
        }
        fusion.map_or(Ok(()), |fusion| fusion.check_queries(n_queries))?;
        let request = &Request { k, ..*request };
        match Groups::new(request.conditions, n_queries)? {
            Groups::One(condition) => self.under(course, snapshot, queries, request, condition),
            Groups::Several(groups) => {
                let mut hits = vec![Vec::new(); n_queries];
                let mut certificates = vec![Certificate::Exact; if certify { n_queries } else { 0 }];
                for (condition, rows) in groups {
                    let lists: Vec<&[u64]> = match excluded.is_empty() {
                        true => Vec::new(),
                        false => rows.iter().map(|&row| excluded[row]).collect(),
                    };
                    let scores = fusion.map(|fusion| fusion.lists_of(&rows)).unwrap_or_default();
                    let fusion = fusion.map(|fusion| fusion.with_lists(&scores));
                    let request = Request { excluded: &lists, fusion, ..*request };
                    let found = self.under(course, snapshot, &queries.select(&rows), &request, Some(condition));
                    let (found, certified) = found.map_err(|error| groups::in_batch(error, &rows))?;
                    rows.iter().zip(found).for_each(|(&row, found)| hits[row] = found);
                    rows.iter().zip(certified).for_each(|(&row, certified)| certificates[row] = certified);
                }
                Ok((hits, certificates))
            }
        }
    }

    /// The best of each query, all under the same condition, if there is one.
    fn under(
        &self,
        course: &mut Course,
        snapshot: &Snapshot,
        queries: &QueryBatch,
        request: &Request,
        condition: Option<&Condition>,
    ) -> Result<Found> {
        let Request { algorithm, k, excluded, filter, fusion, certify, .. } = *request;
        let excluded = snapshot.exclude(excluded, filter);
        let excluded = match condition {
            Some(condition) => {
                let cancel = request.cancel.cloned().unwrap_or_default();
                snapshot.exclude_others(excluded, snapshot.matching(condition, &cancel)?)
            }
            None => excluded,
        };
        let queries = &queries.prepared();
        let Some(fusion) = fusion else {
            return self.best(course, snapshot, queries, (algorithm, k, certify), &excluded);
        };
        let fused = fusion.in_snapshot(snapshot, &excluded)?;
        let others = snapshot.exclude_positions(&excluded, &fused.positions);
        let found = self.best(course, snapshot, queries, (algorithm, k, certify), &others)?;
        let scorer = if algorithm == Algorithm::Mips { Scorer::Dot } else { snapshot.scorer() };
        let context = course.context;
        course.stats.pairs += fused.positions.iter().map(|list| list.len() as u64).sum::<u64>();
        let similarities =
            course.stage(Stage::Scoring, || snapshot.rescore(context, scorer, queries, &fused.positions))?;
        course.stage(Stage::Selection, || fused.merged(snapshot, similarities, k, found))
    }

    /// The best `k` of each query that are not excluded.
    fn best(
        &self,
        course: &mut Course,
        snapshot: &Snapshot,
        queries: &PreparedQueries,
        (algorithm, k, certify): (Algorithm, usize, bool),
        excluded: &Excluded,
    ) -> Result<Found> {
        if let Some(matching) =
            excluded.matching().filter(|matching| matching::are_few(algorithm, k, matching, snapshot))
        {
            return matching::best_of(course, (snapshot, matching), queries, (algorithm, k, certify), excluded);
        }
        let (context, n_queries) = (course.context, queries.batch().len());
        let scan = |scorer| snapshot.scan(context, scorer, queries, k, excluded).map(|hits| (hits, 0));
        let everything = match (algorithm, snapshot.scorer()) {
            (Algorithm::ExactPruned, Scorer::Mol) => {
                Some(course.stage(Stage::Scoring, || snapshot.scan_pruned(context, queries, k, excluded))?)
            }
            (Algorithm::Exact | Algorithm::ExactPruned, scorer) => Some(course.stage(Stage::Scoring, || scan(scorer))?),
            (Algorithm::Mips, _) => Some(course.stage(Stage::Scoring, || scan(Scorer::Dot))?),
            _ => None,
        };
        if let Some((found, pruned)) = everything {
            course.stats.pruned += pruned;
            course.stats.pairs += (snapshot.len() * n_queries) as u64 - pruned;
            let hits: Vec<Vec<Hit>> =
                course.stage(Stage::Selection, || Ok(found.into_iter().map(|hits| named(snapshot, hits)).collect()))?;
            all_found(snapshot, excluded, k, &hits)?;
            return Ok((hits, vec![Certificate::Exact; if certify { n_queries } else { 0 }]));
        }

        let found = approximate(course, snapshot, queries, (algorithm, k, certify), excluded)?;
        self.mention_missing_lists(snapshot, algorithm);
        Ok(found)
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
        snapshot.check_queries(queries)?;
        if snapshot.is_empty() {
            return Ok(vec![Vec::new(); queries.len()]);
        }
        let excluded = snapshot.exclude(excluded, None);
        let context = SearchContext::default();
        let queries = queries.prepared();
        let stage = FirstStage::new(&context, &snapshot, &queries, &excluded)?;
        let id_list = |list: Vec<u32>| {
            let mut ids: Vec<u64> = list.into_iter().map(|position| snapshot.id(position)).collect();
            ids.sort_unstable();
            ids
        };
        let retrieval = stage.retrieval(algorithm, 1)?;
        Ok(stage.collect(algorithm, &retrieval, 1)?.into_iter().map(id_list).collect())
    }

    /// Scores items that the caller has chosen, one list of ids per query, as [`Algorithm::Exact`] does: the candidates of each
    /// query by score descending, then id ascending, each once.
    ///
    /// # Errors
    /// If there is not one list per query, an id is not in the index (it is named), or as [`Searcher::search`].
    pub fn rescore(&self, queries: &QueryBatch, candidates: &[&[u64]]) -> Result<Vec<Vec<Hit>>> {
        let snapshot = self.index.snapshot();
        snapshot.check_queries(queries)?;
        let n_queries = queries.len();
        if candidates.len() != n_queries {
            let expected = format!("{n_queries} lists of ids, one per query");
            return Err(Error::argument(Parameter::Candidates, expected, candidates.len()));
        }
        let position = |&id: &u64| {
            let missing = || Error::argument(Parameter::Candidates, "ids of items in the index", format!("id {id}"));
            snapshot.position(id).ok_or_else(missing)
        };
        let positions = |ids: &&[u64]| -> Result<Vec<u32>> {
            let mut positions = ids.iter().map(position).collect::<Result<Vec<u32>>>()?;
            positions.sort_unstable();
            positions.dedup();
            Ok(positions)
        };
        let lists = candidates.iter().map(positions).collect::<Result<Candidates>>()?;
        let scores = snapshot.rescore(&SearchContext::default(), snapshot.scorer(), &queries.prepared(), &lists)?;
        let pairs = lists.iter().zip(scores).enumerate();
        let hits = pairs.map(|(query, (list, scores))| {
            let found = scores.iter().filter(|score| score.is_finite()).count();
            if found < list.len() {
                return Err(Error::NotScored { query, expected: list.len(), found });
            }
            Ok(named(&snapshot, best(&snapshot, list, scores, list.len())))
        });
        hits.collect()
    }

    /// Says, once, that an algorithm looks into inverted lists, or at centroids, that the index does not have.
    fn mention_missing_lists(&self, snapshot: &Snapshot, algorithm: Algorithm) {
        let tables = || snapshot.segments().iter().map(Segment::tables);
        let has_lists =
            |fits: fn(Columns) -> bool| tables().any(|tables| tables.lists.iter().any(|lists| fits(lists.columns)));
        let missing = match algorithm {
            Algorithm::NaiveIvf { .. } if !has_lists(|columns| matches!(columns, Columns::Group(_))) => {
                "inverted lists of each component"
            }
            Algorithm::TangentIvf { .. } if !has_lists(|columns| columns == Columns::All) => {
                "inverted lists of all components together"
            }
            Algorithm::Centroids { .. } if !tables().any(|tables| tables.has_centroids()) => "centroids",
            _ => return,
        };
        self.mentioned.call_once(|| {
            log::warn!(
                "`{algorithm}` scans all items: the index has no {missing}; build it with some (`IndexOptions::lists`, \
                 `index build --lists`), unless it has few items"
            );
        });
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

/// Fails if a query has fewer than `k` hits though more items are left for it, or one whose score is not a finite number.
fn all_found(snapshot: &Snapshot, excluded: &Excluded, k: usize, hits: &[Vec<Hit>]) -> Result<()> {
    for (query, hits) in hits.iter().enumerate() {
        let found = hits.iter().filter(|hit| hit.score.is_finite()).count();
        if found < k {
            let expected = k.min(snapshot.left(excluded, query));
            if found < expected.max(hits.len()) {
                return Err(Error::NotScored { query, expected, found });
            }
        }
    }
    Ok(())
}

/// The best `k` candidates, in order.
fn best(snapshot: &Snapshot, positions: &[u32], scores: Vec<f32>, k: usize) -> Vec<ScoredPosition> {
    let pairs = positions.iter().zip(scores);
    let mut hits: Vec<_> = pairs.map(|(&position, score)| ScoredPosition { position, score }).collect();
    if hits.len() > k {
        let (_, kth, _) = hits.select_nth_unstable_by(k - 1, |a, b| b.score.total_cmp(&a.score));
        // Ties with the k-th are told apart by their ids. What is not a number stays, to be found out.
        let kth = kth.score;
        hits.retain(|hit| hit.score.partial_cmp(&kth) != Some(Ordering::Less));
    }
    snapshot.sort(&mut hits);
    hits.truncate(k);
    hits
}

fn named(snapshot: &Snapshot, hits: Vec<ScoredPosition>) -> Vec<Hit> {
    hits.into_iter().map(|hit| Hit { id: snapshot.id(hit.position), score: hit.score }).collect()
}
