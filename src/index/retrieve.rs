//! Approximate searches of a snapshot whose devices do first stage and rescoring in one go: of each segment, and of what all of
//! them have found the best.

use rayon::prelude::*;

use super::cost;
use super::{Excluded, Segment, Snapshot};
use crate::Result;
use crate::backend::{
    CandidateScan, Columns, PreparedQueries, Probes, Retrieval, Retrieved, ScoredCandidates, ScoredPosition, Scorer,
    SearchContext,
};
use crate::tensor::Tensor;
use crate::threads;

impl Segment {
    /// The lists that each of the `vectors` looks into, if there are inverted lists of these columns.
    pub(super) fn probes(&self, vectors: &Tensor, columns: Columns, n_probe: usize) -> Option<Probes> {
        let all = &self.tables().lists;
        let lists = all.iter().position(|lists| lists.columns == columns)?;
        Some(Probes { lists, of_vectors: all[lists].probes(vectors, n_probe) })
    }

    /// For each scan of a retrieval the inverted lists that it looks into, where there are any.
    pub fn probes_of(&self, retrieval: &Retrieval) -> Vec<Option<Probes>> {
        let probes = |scan: &CandidateScan| match scan {
            CandidateScan::Lists { vectors, columns, n_probe, .. } => self.probes(vectors, *columns, *n_probe),
            _ => None,
        };
        retrieval.scans.iter().map(probes).collect()
    }
}

impl Snapshot {
    /// Whether [`Snapshot::retrieve`] can do this: on devices that can, with candidates that scores tell, or thresholds.
    pub fn retrieves(&self, retrieval: &Retrieval) -> bool {
        let by_scores = !retrieval.scans.iter().any(|scan| matches!(scan, CandidateScan::Above { .. }));
        let merges = self.segments.len() == 1 || by_scores || retrieval.is_by_thresholds();
        merges && self.scorer() == Scorer::Mol && self.segments.iter().all(|segment| segment.backend().retrieves())
    }

    /// See [`DeviceIndex::retrieve`](crate::backend::DeviceIndex::retrieve); [`Snapshot::retrieves`] it.
    ///
    /// # Errors
    /// As there.
    pub fn retrieve(
        &self,
        context: &SearchContext,
        retrieval: &Retrieval,
        queries: &PreparedQueries,
        (k, keep): (usize, bool),
        excluded: &Excluded,
    ) -> Result<Option<Vec<Retrieved>>> {
        if self.segments.len() > 1 && !retrieval.is_by_thresholds() {
            return self.retrieve_by_scores(context, retrieval, queries, k, excluded);
        }
        let found = self.each(context, excluded, |device, excluded, segment| {
            let probes = segment.probes_of(retrieval);
            let k = k.min(segment.len());
            let found = device.retrieve(context, retrieval, &probes, queries, (k, keep), excluded)?;
            if let Some(found) = &found {
                let left = |query| excluded.left(query, segment.len());
                let judged = |n: usize| (0..queries.batch().len()).map(|query| n.min(left(query))).sum();
                let scored = found.iter().map(|found| found.n_scored).sum();
                count_reads(context, segment, (retrieval, &probes), judged, scored);
            }
            Ok(found)
        })?;
        Ok(found.into_iter().collect::<Option<Vec<_>>>().map(|found| self.added_up(found, k)))
    }

    /// [`Snapshot::retrieve`] by what each segment says of its own candidates. `keep` makes no difference: they are here.
    fn retrieve_by_scores(
        &self,
        context: &SearchContext,
        retrieval: &Retrieval,
        queries: &PreparedQueries,
        k: usize,
        excluded: &Excluded,
    ) -> Result<Option<Vec<Retrieved>>> {
        let found = self.each(context, excluded, |device, excluded, segment| {
            let probes = segment.probes_of(retrieval);
            let found = device.retrieve_candidates(context, retrieval, &probes, queries, excluded)?;
            if let Some(found) = &found {
                let judged = |_| found.iter().map(|found| found.distilled.len()).sum();
                let scored = found.iter().map(|found| found.scored.len()).sum();
                count_reads(context, segment, (retrieval, &probes), judged, scored);
            }
            Ok(found)
        })?;
        let Some(mut found) = found.into_iter().collect::<Option<Vec<_>>>() else { return Ok(None) };
        let n_queries = queries.batch().len();
        let of_query = |query: usize| -> Vec<ScoredCandidates> {
            found.iter_mut().map(|segment| std::mem::take(&mut segment[query])).collect()
        };
        let by_query: Vec<_> = (0..n_queries).map(of_query).collect();
        let united = |found: Vec<ScoredCandidates>| self.united(retrieval, found);
        let mut united: Vec<Scored> = threads::run(|| by_query.into_par_iter().map(united).collect());
        if united.iter().any(|query| !query.missing.is_empty()) {
            let missing: Vec<Vec<u32>> = united.iter_mut().map(|query| std::mem::take(&mut query.missing)).collect();
            let scores = self.rescore(context, Scorer::Mol, queries, &missing)?;
            for (query, (positions, scores)) in united.iter_mut().zip(missing.into_iter().zip(scores)) {
                query.n_scored += positions.len();
                let hits = positions.into_iter().zip(scores);
                query.hits.extend(hits.map(|(position, score)| ScoredPosition { position, score }));
            }
        }
        let retrieved = |Scored { mut hits, candidates, n_scored, .. }| {
            self.sort(&mut hits);
            hits.truncate(k);
            Retrieved { hits, n_candidates: candidates.len(), n_scored, candidates }
        };
        Ok(Some(united.into_iter().map(retrieved).collect()))
    }

    /// What all segments have found for one query: the candidates are those of the whole index.
    fn united(&self, retrieval: &Retrieval, found: Vec<ScoredCandidates>) -> Scored {
        // Of positions in segments ones in the index.
        let all = |list: &dyn Fn(&ScoredCandidates) -> &[ScoredPosition]| -> Vec<ScoredPosition> {
            let segments = found.iter().zip(&self.offsets);
            let moved = segments.flat_map(|(found, offset)| {
                list(found).iter().map(move |hit| ScoredPosition { position: hit.position + offset, ..*hit })
            });
            moved.collect()
        };
        let best = |mut hits: Vec<ScoredPosition>, n: usize| {
            self.sort(&mut hits);
            hits.truncate(n);
            hits.into_iter().map(|hit| hit.position)
        };
        let vectors = retrieval.scans.iter().flat_map(|scan| match scan {
            CandidateScan::Best { n, per_query, .. } | CandidateScan::Lists { n, per_query, .. } => {
                std::iter::repeat_n(*n, *per_query)
            }
            CandidateScan::Distilled { n } => std::iter::repeat_n(*n, 1),
            CandidateScan::Above { .. } | CandidateScan::Tokens { .. } | CandidateScan::Centroids { .. } => {
                std::iter::repeat_n(0, 0)
            }
        });
        let mut candidates: Vec<u32> = Vec::new();
        for (vector, n) in vectors.enumerate() {
            candidates.extend(best(all(&|found| &found.by_vector[vector]), n));
        }
        candidates.sort_unstable();
        candidates.dedup();
        if let Some(n) = retrieval.distilled {
            let judged = among(&all(&|found| &found.distilled), &candidates);
            candidates = best(judged, n).collect();
            candidates.sort_unstable();
        }
        let hits = among(&all(&|found| &found.scored), &candidates);
        let is_scored = |position: &u32| hits.binary_search_by_key(position, |hit| hit.position).is_ok();
        let missing = candidates.iter().copied().filter(|position| !is_scored(position)).collect();
        Scored { hits, missing, n_scored: found.iter().map(|found| found.scored.len()).sum(), candidates }
    }

    /// The best `k` of what each segment has retrieved for each query, where the candidates of all segments are those of the
    /// index.
    fn added_up(&self, mut found: Vec<Vec<Retrieved>>, k: usize) -> Vec<Retrieved> {
        if found.len() == 1 {
            return found.remove(0);
        }
        let mut all = vec![Retrieved::default(); found.first().map_or(0, Vec::len)];
        for (found, offset) in found.into_iter().zip(&self.offsets) {
            for (all, found) in all.iter_mut().zip(found) {
                let moved = |hit: ScoredPosition| ScoredPosition { position: hit.position + offset, ..hit };
                all.hits.extend(found.hits.into_iter().map(moved));
                all.n_candidates += found.n_candidates;
                all.n_scored += found.n_scored;
                all.candidates.extend(found.candidates.into_iter().map(|position| position + offset));
            }
        }
        for all in &mut all {
            self.sort(&mut all.hits);
            all.hits.truncate(k);
        }
        all
    }
}

/// The candidates of a query.
struct Scored {
    /// Positions, ascending.
    candidates: Vec<u32>,
    /// Those whose score by the full similarity is known.
    hits: Vec<ScoredPosition>,
    /// The others: where the distilled gate prefers items of their segment that are no candidates of the index.
    missing: Vec<u32>,
    /// Items that were scored.
    n_scored: usize,
}

/// Of `hits` those at `positions`; both ascend.
fn among(hits: &[ScoredPosition], positions: &[u32]) -> Vec<ScoredPosition> {
    hits.iter().filter(|hit| positions.binary_search(&hit.position).is_ok()).copied().collect()
}

/// Counts what a retrieval reads of a segment: `judged` says how many of the best n of a scan the distilled gate judges.
fn count_reads(
    context: &SearchContext,
    segment: &Segment,
    (retrieval, probes): (&Retrieval, &[Option<Probes>]),
    judged: impl Fn(usize) -> usize,
    scored: usize,
) {
    let tables = segment.tables();
    for (scan, probes) in retrieval.scans.iter().zip(probes) {
        match scan {
            CandidateScan::Best { columns, n, .. } | CandidateScan::Lists { columns, n, .. } => {
                match probes {
                    Some(Probes { lists, of_vectors }) => {
                        let lists = &tables.lists[*lists];
                        context.reads(lists.n_probed(of_vectors), cost::of(&lists.vectors));
                    }
                    None => context.reads(segment.len(), cost::of_columns(tables, *columns)),
                }
                if retrieval.distilled.is_some() {
                    context.reads(judged(*n), cost::of_scorer(tables, Scorer::Distilled));
                }
            }
            CandidateScan::Above { columns, .. } => {
                context.reads(segment.len(), cost::of_columns(tables, *columns));
            }
            CandidateScan::Centroids { .. } => {
                context.reads(segment.len(), cost::of_scorer(tables, Scorer::Centroids));
            }
            CandidateScan::Tokens { .. } => context.reads(segment.len(), cost::of_scorer(tables, Scorer::MaxSim)),
            CandidateScan::Distilled { .. } => {
                context.reads(segment.len(), cost::of_scorer(tables, Scorer::Distilled));
            }
        }
    }
    context.reads(scored, cost::of_scorer(tables, Scorer::Mol));
}
