//! The first stage of an approximate search on the device: scans that find candidates, recorded for the submission that rescores
//! these, too.

use std::ops::Range;

use super::index::GpuIndex;
use super::kernels::Recorder;
use super::scan::{InvertedLists, ItemTable, ListTasks, Scan, ScanPlan, chosen};
use super::select::{HIT_BYTES, HitLists, Passed, SortedHits, TopK, Union, union_bytes};
use crate::Result;
use crate::backend::{CandidateScan, Exclusions, PreparedQueries, Probes, Retrieval, Scorer, SearchContext, check};

/// Room for hits above a threshold beyond twice the number that is expected.
const MORE_ABOVE: usize = 1024;

/// The first stage of a batch on one index.
pub(super) struct FirstStage<'a> {
    pub index: &'a GpuIndex,
    pub context: &'a SearchContext,
    pub retrieval: &'a Retrieval,
    pub queries: &'a PreparedQueries<'a>,
    excluded: &'a Exclusions,
    /// For each scan, if it is one of inverted lists: their number, and what of them is scanned.
    list_tasks: Vec<Option<(usize, ListTasks)>>,
}

/// What is wanted of a retrieval, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The best candidates, on the device: lists that lack hits would not be noticed.
    OnDevice,
    /// The best candidates.
    Best,
    /// These, and the positions of all.
    Candidates,
    /// What every scan has found, and all scores.
    Scores,
}

/// The candidates of some queries.
pub(super) struct Candidates {
    /// One list per query.
    pub lists: HitLists,
    /// Most hits of a list.
    pub longest: usize,
    /// For the lists that they come from, where these may lack some.
    pub passed: Vec<Passed>,
    /// For [`Wanted::Scores`]: the best of each scan, but of those above thresholds; every query has the lists of all its vectors.
    pub by_scan: Vec<SortedHits>,
}

/// What a scan has recorded.
struct Found {
    top_k: TopK,
    /// Most hits of a list.
    longest: usize,
    /// For lists that may lack hits that they should have.
    passed: Option<Passed>,
}

/// What a scan reads.
enum Source<'a> {
    Items(&'a ItemTable),
    Lists(&'a InvertedLists, &'a ListTasks),
}

impl Source<'_> {
    /// Most items that a vector is multiplied with.
    fn n_items(&self) -> usize {
        match self {
            Source::Items(table) => table.rows.last().map_or(0, |rows| rows.end),
            Source::Lists(_, tasks) => tasks.longest(),
        }
    }
}

impl<'a> FirstStage<'a> {
    /// Of `queries` on an index; `probes` as in [`crate::backend::DeviceIndex::retrieve`].
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn new(
        (index, context): (&'a GpuIndex, &'a SearchContext),
        (retrieval, probes): (&'a Retrieval, &[Option<Probes>]),
        queries: &'a PreparedQueries<'a>,
        excluded: &'a Exclusions,
    ) -> Result<FirstStage<'a>> {
        check::mol_queries(index.host.raw.width(), index.extent().2, queries.batch())?;
        let tasks = |(scan, probes): (&CandidateScan, Option<&Probes>)| match (scan, probes) {
            (CandidateScan::Lists { vectors, .. }, Some(Probes { lists, of_vectors })) => {
                check::lists(&index.host, *lists, vectors, of_vectors)?;
                Ok(Some((*lists, index.lists[*lists].tasks(of_vectors))))
            }
            _ => Ok(None),
        };
        let probes = probes.iter().map(Option::as_ref).chain(std::iter::repeat(None));
        let list_tasks = retrieval.scans.iter().zip(probes).map(tasks).collect::<Result<_>>()?;
        Ok(FirstStage { index, context, retrieval, queries, excluded, list_tasks })
    }

    /// Hits that a query has from scan number `scan` at most, and its vectors.
    fn extent(&self, scan: usize) -> (usize, usize) {
        let n_items = self.index.host.len();
        match &self.retrieval.scans[scan] {
            CandidateScan::Best { n, per_query, .. } | CandidateScan::Lists { n, per_query, .. } => {
                (n.min(&n_items) * per_query, *per_query)
            }
            CandidateScan::Above { expected, .. } => ((2 * expected).saturating_add(MORE_ABOVE).min(n_items), 1),
            CandidateScan::Distilled { n } | CandidateScan::Tokens { n } | CandidateScan::Centroids { n } => {
                (*n.min(&n_items), 1)
            }
        }
    }

    /// Numbers of the scans.
    fn scans(&self) -> Range<usize> {
        0..self.retrieval.scans.len()
    }

    /// Most candidates of a query.
    fn most(&self) -> usize {
        self.scans().map(|scan| self.extent(scan).0).sum()
    }

    /// Bytes of the longest array that the candidates of a query take.
    pub fn bytes(&self) -> u64 {
        union_bytes(self.most())
    }

    /// Queries that there is room for at a time; 0 if there is none.
    ///
    /// # Errors
    /// If shapes do not fit, or not even one query's hit list fits a binding.
    pub fn queries_together(&self) -> Result<usize> {
        let limits = &self.index.limits;
        let mut together = (limits.binding_bytes / self.bytes()).min(limits.workgroups as u64) as usize;
        for scan in self.scans() {
            let (hits, per_query) = self.extent(scan);
            let of_scan = match &self.retrieval.scans[scan] {
                CandidateScan::Above { .. } => {
                    let list = hits as u64 * HIT_BYTES;
                    (limits.hit_list_bytes.max(list).min(limits.binding_bytes) / list) as usize
                }
                _ => self.with_scan(scan, |_, plan, _| Ok(plan.slice))?,
            };
            together = together.min(of_scan / per_query);
        }
        Ok(together)
    }

    /// Does `work` with a scan and its plan.
    fn with_scan<T>(&self, number: usize, work: impl FnOnce(&Scan, &ScanPlan, Source) -> Result<T>) -> Result<T> {
        let FirstStage { index, context, retrieval, queries, excluded, list_tasks } = self;
        match &retrieval.scans[number] {
            CandidateScan::Best { vectors, columns, n, per_query }
            | CandidateScan::Lists { vectors, columns, n, per_query, .. } => {
                let excluded = excluded.repeated(vectors.rows() / per_query, *per_query);
                if let Some((lists, tasks)) = &list_tasks[number] {
                    return index.list_scan(context, *lists, vectors, &excluded, |scan, lists| {
                        let plan = scan.list_plan(tasks, list_hits(*n, tasks))?;
                        work(scan, &plan, Source::Lists(lists, tasks))
                    });
                }
                check::components(&index.host, vectors, *columns)?;
                index.component_scan(context, vectors, *columns, &excluded, |scan, table| {
                    work(scan, &scan.plan(*n.min(&index.host.len()), &table.rows)?, Source::Items(table))
                })
            }
            CandidateScan::Above { vectors, columns, thresholds, .. } => {
                check::components(&index.host, vectors, *columns)?;
                check::thresholds(vectors.rows(), thresholds)?;
                index.component_scan(context, vectors, *columns, excluded, |scan, table| {
                    work(scan, &scan.plan(0, &table.rows)?, Source::Items(table))
                })
            }
            CandidateScan::Distilled { n } => {
                index.mixture_scan(context, Scorer::Distilled, queries, excluded, |scan, table| {
                    let tier = chosen(&scan, table)?;
                    let scan = Scan { tier, ..scan };
                    work(&scan, &scan.plan(*n.min(&index.host.len()), &table.rows)?, Source::Items(table))
                })
            }
            // Indexes of token embeddings have no retrieval in one go.
            CandidateScan::Tokens { .. } | CandidateScan::Centroids { .. } => Err(check::no_mol()),
        }
    }

    /// Records a scan for the queries `range`.
    fn record(&self, recorder: &mut Recorder, number: usize, range: &Range<usize>, may_lack: bool) -> Result<Found> {
        let (hits, per_query) = self.extent(number);
        let vectors = range.start * per_query..range.end * per_query;
        self.with_scan(number, |scan, plan, source| {
            let table = match source {
                Source::Items(table) => table,
                Source::Lists(lists, tasks) => {
                    let n = list_hits(hits / per_query, tasks);
                    let top_k = scan.record_best_of_lists(recorder, (lists, tasks, plan), vectors, n)?;
                    return Ok(Found { top_k, longest: n, passed: None });
                }
            };
            if let CandidateScan::Above { thresholds, .. } = &self.retrieval.scans[number] {
                let room = (&thresholds[range.clone()], hits);
                let lists = scan.record_above(recorder, (table, plan), vectors, room)?;
                let passed = Some(lists.passed(recorder, 0));
                return Ok(Found { top_k: TopK::of(lists, hits), longest: hits, passed });
            }
            let n = hits / per_query;
            let sampled = scan.sampled_plan(n, &table.rows).filter(|plan| may_lack && plan.slice >= vectors.len());
            let (top_k, passed) = match sampled {
                Some(plan) => {
                    let (top_k, passed) = scan.record_sampled(recorder, (table, &plan), vectors, (n, false))?;
                    (top_k, Some(passed))
                }
                None => (scan.record_best(recorder, (table, plan), vectors, (n, false))?, None),
            };
            Ok(Found { top_k, longest: n, passed })
        })
    }

    /// Records the scans for the queries `range`. Only the last commands are not submitted yet.
    ///
    /// # Errors
    /// If there is no room for hits, or of submissions.
    pub fn candidates(&self, recorder: &mut Recorder, range: &Range<usize>, wanted: Wanted) -> Result<Candidates> {
        let may_lack = wanted != Wanted::OnDevice;
        let scans = &self.retrieval.scans;
        let is_above = |scan: usize| matches!(scans[scan], CandidateScan::Above { .. });
        // Nothing but candidates lies in the lists of a union.
        let united = matches!(wanted, Wanted::Candidates | Wanted::Scores);
        if !united && scans.len() == 1 && self.extent(0).1 == 1 && !is_above(0) {
            let Found { top_k, longest, passed } = self.record(recorder, 0, range, may_lack)?;
            let passed = passed.into_iter().collect();
            return Ok(Candidates { lists: top_k.lists, longest, passed, by_scan: Vec::new() });
        }
        let most = self.most();
        let union = Union::new(recorder, range.len(), most);
        let (mut passed, mut by_scan) = (Vec::new(), Vec::new());
        let mut flops = 0u64;
        for scan in self.scans() {
            let (hits, per_query) = self.extent(scan);
            let more = self.with_scan(scan, |scan, _, source| {
                Ok(scan.variant.pair_flops * (source.n_items() * range.len() * per_query) as u64)
            })?;
            if flops > 0 && flops.saturating_add(more) > self.index.limits.submission_flops {
                recorder.submit()?;
                flops = 0;
            }
            flops = flops.saturating_add(more);
            let found = self.record(recorder, scan, range, may_lack)?;
            union.add(recorder, &found.top_k.lists, found.longest, per_query);
            passed.extend(found.passed);
            if wanted == Wanted::Scores && !is_above(scan) {
                TopK::check(hits / per_query)?;
                by_scan.push(found.top_k.sorted(recorder));
            }
        }
        Ok(Candidates { lists: union.lists, longest: most, passed, by_scan })
    }
}

/// Hits that a scan of inverted lists for the best `n` keeps.
fn list_hits(n: usize, tasks: &ListTasks) -> usize {
    n.min(tasks.longest()).max(1)
}
