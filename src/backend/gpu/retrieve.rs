//! Approximate searches in one submission: the scans that find candidates, what is left of these, their rescoring by the full
//! similarity, and the best k, which alone are read.

use std::ops::Range;

use super::device::Buffer;
use super::index::GpuIndex;
use super::kernels::Recorder;
use super::scan::{ItemTable, Scan, ScanPlan, chosen, rescore_hits};
use super::select::{HIT_BYTES, HitLists, Passed, TopK, Union, union_bytes, word};
use crate::Result;
use crate::backend::{CandidateScan, Exclusions, PreparedQueries, Retrieval, Retrieved, Scorer, SearchContext, check};
use crate::context::Stage;

/// Room for hits above a threshold beyond twice the number that is expected.
const MORE_ABOVE: usize = 1024;

/// Whether the kernels here can do it.
pub(super) fn retrieves(retrieval: &Retrieval) -> bool {
    !retrieval.scans.iter().any(|scan| matches!(scan, CandidateScan::Lists { .. }))
}

/// An approximate search of a batch on one index.
pub(super) struct Retriever<'a> {
    pub index: &'a GpuIndex,
    pub context: &'a SearchContext,
    pub retrieval: &'a Retrieval,
    pub queries: &'a PreparedQueries<'a>,
    pub excluded: &'a Exclusions,
}

/// What a candidate scan has recorded.
struct Found {
    lists: HitLists,
    /// Most hits of a list.
    longest: usize,
    per_query: usize,
    /// For lists that may lack hits that they should have.
    passed: Option<Passed>,
}

impl Retriever<'_> {
    /// See [`crate::backend::DeviceIndex::retrieve`].
    pub fn retrieve(&self, k: usize, keep: bool) -> Result<Option<Vec<Retrieved>>> {
        if !retrieves(self.retrieval) {
            return Ok(None);
        }
        let n_queries = self.queries.batch().len();
        let together = self.queries_together()?;
        if together == 0 {
            return Ok(None);
        }
        let mut all = Vec::with_capacity(n_queries);
        for from in (0..n_queries).step_by(together) {
            match self.retrieve_for(from..n_queries.min(from + together), k, keep)? {
                Some(retrieved) => all.extend(retrieved),
                None => return Ok(None),
            }
        }
        Ok(Some(all))
    }

    /// Hits that a query has from one of the scans at most, and its vectors.
    fn extent(&self, scan: &CandidateScan) -> (usize, usize) {
        let n_items = self.index.host.len();
        match scan {
            CandidateScan::Best { n, per_query, .. } | CandidateScan::Lists { n, per_query, .. } => {
                (n * per_query, *per_query)
            }
            CandidateScan::Above { expected, .. } => ((2 * expected).saturating_add(MORE_ABOVE).min(n_items), 1),
            CandidateScan::Distilled { n } => (*n, 1),
        }
    }

    /// Most candidates of a query.
    fn most(&self) -> usize {
        self.retrieval.scans.iter().map(|scan| self.extent(scan).0).sum()
    }

    /// Queries that there is room for at a time; 0 if there is none.
    fn queries_together(&self) -> Result<usize> {
        let (limits, most) = (&self.index.limits, self.most());
        let mut together = (limits.binding_bytes / union_bytes(most)).min(limits.workgroups as u64) as usize;
        for scan in &self.retrieval.scans {
            let (hits, per_query) = self.extent(scan);
            let of_scan = match scan {
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
    fn with_scan<T>(
        &self,
        scan: &CandidateScan,
        work: impl FnOnce(&Scan, &ScanPlan, &ItemTable) -> Result<T>,
    ) -> Result<T> {
        let index = self.index;
        match scan {
            CandidateScan::Best { vectors, columns, n, per_query }
            | CandidateScan::Lists { vectors, columns, n, per_query, .. } => {
                check::components(&index.host, vectors, *columns)?;
                let excluded = self.excluded.repeated(vectors.rows() / per_query, *per_query);
                index.component_scan(self.context, vectors, *columns, &excluded, |scan, table| {
                    work(scan, &scan.plan(*n, &table.rows)?, table)
                })
            }
            CandidateScan::Above { vectors, columns, thresholds, .. } => {
                check::components(&index.host, vectors, *columns)?;
                check::thresholds(vectors.rows(), thresholds)?;
                index.component_scan(self.context, vectors, *columns, self.excluded, |scan, table| {
                    work(scan, &scan.plan(0, &table.rows)?, table)
                })
            }
            CandidateScan::Distilled { n } => {
                index.mixture_scan(self.context, Scorer::Distilled, self.queries, self.excluded, |scan, table| {
                    let tier = chosen(&scan, table)?;
                    let scan = Scan { tier, ..scan };
                    work(&scan, &scan.plan(*n, &table.rows)?, table)
                })
            }
        }
    }

    /// Records a scan for the queries `range`.
    fn record(&self, recorder: &mut Recorder, scan: &CandidateScan, range: &Range<usize>) -> Result<Found> {
        let (hits, per_query) = self.extent(scan);
        let vectors = range.start * per_query..range.end * per_query;
        self.with_scan(scan, |device_scan, plan, table| match scan {
            CandidateScan::Above { thresholds, .. } => {
                let room = (&thresholds[range.clone()], hits);
                let lists = device_scan.record_above(recorder, (table, plan), vectors, room)?;
                let passed = Some(lists.passed(recorder, 0));
                Ok(Found { lists, longest: hits, per_query, passed })
            }
            _ => {
                let n = hits / per_query;
                let sampled = device_scan.sampled_plan(n, &table.rows).filter(|plan| plan.slice >= vectors.len());
                let (top_k, passed) = match sampled {
                    Some(plan) => {
                        let (top_k, passed) =
                            device_scan.record_sampled(recorder, (table, &plan), vectors, (n, false))?;
                        (top_k, Some(passed))
                    }
                    None => (device_scan.record_best(recorder, (table, plan), vectors, (n, false))?, None),
                };
                Ok(Found { lists: top_k.lists, longest: n, per_query, passed })
            }
        })
    }

    /// The candidates of the queries `range`, and how many of them each has at most. `keep`: whether nothing else may lie in their
    /// lists.
    fn candidates(&self, recorder: &mut Recorder, range: &Range<usize>, keep: bool) -> Result<Candidates> {
        let scans = &self.retrieval.scans;
        if let ([scan @ (CandidateScan::Best { per_query: 1, .. } | CandidateScan::Distilled { .. })], false) =
            (scans.as_slice(), keep)
        {
            let Found { lists, longest, passed, .. } = self.record(recorder, scan, range)?;
            return Ok(Candidates { lists, longest, passed: passed.into_iter().collect() });
        }
        let most = self.most();
        let union = Union::new(recorder, range.len(), most);
        let mut passed = Vec::new();
        let mut flops = 0u64;
        for scan in scans {
            let per_query = self.extent(scan).1;
            let more = self.with_scan(scan, |scan, _, table| {
                let n_items = table.rows.last().map_or(0, |rows| rows.end);
                Ok(scan.variant.pair_flops * (n_items * range.len() * per_query) as u64)
            })?;
            if flops > 0 && flops.saturating_add(more) > self.index.limits.submission_flops {
                recorder.submit()?;
                flops = 0;
            }
            flops = flops.saturating_add(more);
            let found = self.record(recorder, scan, range)?;
            union.add(recorder, &found.lists, found.longest, found.per_query);
            passed.extend(found.passed);
        }
        Ok(Candidates { lists: union.lists, longest: most, passed })
    }

    fn retrieve_for(&self, range: Range<usize>, k: usize, keep: bool) -> Result<Option<Vec<Retrieved>>> {
        let index = self.index;
        let (mol, limits) = (index.mol()?, &index.limits);
        let mut recorder = Recorder::with_context(self.context, &index.gpu);
        self.context.enter(Stage::FirstStage);
        let Candidates { mut lists, mut longest, passed } = self.candidates(&mut recorder, &range, keep)?;
        let parts = mol.similarity.query_parts(&mut recorder, self.queries, range.clone());
        let rescore = |recorder: &mut Recorder, scorer, lists: &HitLists, longest| -> Result<()> {
            let (variant, weights) = mol.similarity.scorer(scorer)?;
            let table = index.mol_table(mol);
            rescore_hits(recorder, (variant, &weights.floats, limits), table, &parts, (lists, longest))
        };
        if let Some(n) = self.retrieval.distilled {
            rescore(&mut recorder, Scorer::Distilled, &lists, longest)?;
            let mut judged = TopK::of(lists, n);
            judged.select(&mut recorder, longest, limits.long_list);
            lists = judged.lists;
            longest = longest.min(n);
        }
        self.context.enter(Stage::Scoring);
        rescore(&mut recorder, Scorer::Mol, &lists, longest)?;

        let counts = recorder.temporary(lists.state.bytes());
        recorder.copy(&lists.state, &counts);
        let kept = keep.then(|| recorder.temporary(lists.hits.bytes()));
        if let Some(kept) = &kept {
            recorder.copy(&lists.hits, kept);
        }
        let capacity = lists.capacity;
        let k = k.min(longest).max(1);
        let mut top_k = TopK::of(lists, k);
        top_k.select(&mut recorder, longest, limits.long_list);
        let sorted = top_k.sorted(&mut recorder);
        let results = [&counts, &top_k.lists.state, &sorted];
        let others = passed.iter().map(|passed| &passed.state).chain(&kept);
        let read = recorder.read_all(&results.into_iter().chain(others).collect::<Vec<&Buffer>>())?;
        let lacks = |(passed, state): (&Passed, &Vec<u8>)| passed.lacking(state).contains(&true);
        if passed.iter().zip(&read[3..]).any(lacks) {
            return Ok(None);
        }
        let hits = top_k.hits(&read[1], &read[2]).into_iter();
        let retrieved = hits.zip(HitLists::states(&read[0])).enumerate().map(|(query, (hits, state))| {
            let list = kept.iter().flat_map(|_| {
                let list = &read[read.len() - 1][query * capacity * HIT_BYTES as usize..];
                list.chunks_exact(HIT_BYTES as usize).take(state.count).map(|hit| !word(hit, 4))
            });
            let mut candidates: Vec<u32> = list.collect();
            candidates.sort_unstable();
            Retrieved { hits, n_candidates: state.count, n_scored: state.count, candidates }
        });
        Ok(Some(retrieved.collect()))
    }
}

/// The candidates of some queries.
struct Candidates {
    /// One list per query.
    lists: HitLists,
    /// Most hits of a list.
    longest: usize,
    /// For the lists that they come from, where these may lack some.
    passed: Vec<Passed>,
}
