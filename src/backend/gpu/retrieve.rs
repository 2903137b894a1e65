//! Approximate searches in one submission: the scans that find candidates, what is left of these, their rescoring by the full
//! similarity, and the best k, which alone are read.

use std::ops::Range;

use super::device::Buffer;
use super::first_stage::{Candidates, FirstStage, Wanted};
use super::kernels::Recorder;
use super::scan::rescore_hits;
use super::select::{HitLists, Passed, TopK};
use crate::backend::{Hits, Retrieved, ScoredCandidates, Scorer};
use crate::context::Stage;
use crate::{Error, Result};

/// An approximate search of a batch on one index.
pub(super) struct Retriever<'a>(pub FirstStage<'a>);

/// Candidates with their scores by the full similarity.
struct Scored {
    candidates: Candidates,
    /// For [`Wanted::Scores`]: those that the distilled gate has judged, by its scores.
    judged: Option<HitLists>,
}

impl Retriever<'_> {
    /// See [`crate::backend::DeviceIndex::retrieve`].
    pub fn best(&self, k: usize, keep: bool) -> Result<Option<Vec<Retrieved>>> {
        TopK::check(k)?;
        self.by_slices(|range| self.best_of(range, k, keep))
    }

    /// See [`crate::backend::DeviceIndex::retrieve_candidates`].
    pub fn scored_candidates(&self) -> Result<Option<Vec<ScoredCandidates>>> {
        self.by_slices(|range| self.scored_candidates_of(range))
    }

    /// Submits a retrieval whose best `k` go to `positions_and_scores`, each (B, k) words. Does not wait.
    ///
    /// # Errors
    /// If there is no room for a single query's candidates, or of submissions.
    pub fn write_best(&self, k: usize, positions_and_scores: [&Buffer; 2]) -> Result<()> {
        TopK::check(k)?;
        let written = self.by_slices(|range| {
            let mut recorder = Recorder::with_context(self.0.context, &self.0.index.gpu);
            let Scored { candidates: Candidates { lists, longest, .. }, .. } =
                self.record(&mut recorder, &range, Wanted::OnDevice)?;
            let mut top_k = TopK::of(lists, k);
            top_k.select(&mut recorder, longest, self.0.index.limits.long_list);
            top_k.write(&mut recorder, positions_and_scores, range.start);
            recorder.submit()?;
            Ok(Some(Vec::<()>::new()))
        })?;
        let no_room = || Error::Limit {
            what: "bytes for the candidates of a query",
            need: self.0.bytes(),
            have: self.0.index.limits.binding_bytes,
        };
        written.map(|_| ()).ok_or_else(no_room)
    }

    /// What `work` has found for as many queries at a time as there is room for; `None` if it cannot, or there is none.
    fn by_slices<T>(&self, mut work: impl FnMut(Range<usize>) -> Result<Option<Vec<T>>>) -> Result<Option<Vec<T>>> {
        let n_queries = self.0.queries.batch().len();
        let together = self.0.queries_together()?;
        if together == 0 {
            return Ok(None);
        }
        let mut all = Vec::with_capacity(n_queries);
        for from in (0..n_queries).step_by(together) {
            match work(from..n_queries.min(from + together))? {
                Some(found) => all.extend(found),
                None => return Ok(None),
            }
        }
        Ok(Some(all))
    }

    /// Records everything up to the scores by the full similarity, for the queries `range`.
    fn record(&self, recorder: &mut Recorder, range: &Range<usize>, wanted: Wanted) -> Result<Scored> {
        let FirstStage { index, context, retrieval, queries, .. } = &self.0;
        let (mol, limits) = (index.mol()?, &index.limits);
        context.enter(Stage::FirstStage);
        let mut candidates = self.0.candidates(recorder, range, wanted)?;
        let parts = mol.similarity.query_parts(recorder, queries, range.clone());
        let rescore = |recorder: &mut Recorder, scorer, Candidates { lists, longest, .. }: &Candidates| -> Result<()> {
            let (variant, weights) = mol.similarity.scorer(scorer)?;
            let table = index.mol_table(mol);
            rescore_hits(recorder, (variant, &weights.floats, limits), table, &parts, (lists, *longest))
        };
        let mut judged = None;
        if let Some(n) = retrieval.distilled {
            rescore(recorder, Scorer::Distilled, &candidates)?;
            judged = (wanted == Wanted::Scores).then(|| candidates.lists.copied(recorder));
            let longest = candidates.longest;
            let mut best = TopK::of(candidates.lists, n);
            best.select(recorder, longest, limits.long_list);
            candidates = Candidates { lists: best.lists, longest: longest.min(n), ..candidates };
        }
        context.enter(Stage::Scoring);
        rescore(recorder, Scorer::Mol, &candidates)?;
        Ok(Scored { candidates, judged })
    }

    fn best_of(&self, range: Range<usize>, k: usize, keep: bool) -> Result<Option<Vec<Retrieved>>> {
        let mut recorder = Recorder::with_context(self.0.context, &self.0.index.gpu);
        let wanted = if keep { Wanted::Candidates } else { Wanted::Best };
        let Scored { candidates: Candidates { lists, longest, passed, .. }, .. } =
            self.record(&mut recorder, &range, wanted)?;

        let counts = recorder.temporary(lists.state.bytes());
        recorder.copy(&lists.state, &counts);
        let kept = keep.then(|| lists.copied(&mut recorder));
        let mut top_k = TopK::of(lists, k.min(longest).max(1));
        top_k.select(&mut recorder, longest, self.0.index.limits.long_list);
        let sorted = top_k.sorted(&mut recorder);
        let [state, best] = sorted.buffers();
        let others = kept.iter().map(|kept| &kept.hits).chain(passed.iter().map(|passed| &passed.state));
        let read = recorder.read_all(&[&counts, state, best].into_iter().chain(others).collect::<Vec<_>>())?;
        if lack(&passed, &read[read.len() - passed.len()..]) {
            return Ok(None);
        }
        let candidates = kept.map_or_else(|| vec![Vec::new(); range.len()], |kept| kept.listed(&read[0], &read[3]));
        let hits = sorted.hits(&read[1], &read[2]).into_iter().zip(candidates);
        let retrieved = hits.zip(HitLists::states(&read[0])).map(|((hits, candidates), state)| Retrieved {
            hits,
            n_candidates: state.count,
            n_scored: state.count,
            candidates: candidates.into_iter().map(|hit| hit.position).collect(),
        });
        Ok(Some(retrieved.collect()))
    }

    fn scored_candidates_of(&self, range: Range<usize>) -> Result<Option<Vec<ScoredCandidates>>> {
        let mut recorder = Recorder::with_context(self.0.context, &self.0.index.gpu);
        let Scored { candidates, judged } = self.record(&mut recorder, &range, Wanted::Scores)?;
        let Candidates { lists, passed, by_scan, .. } = candidates;
        let of_lists = |lists: &HitLists| [lists.state.clone(), lists.hits.clone()];
        let buffers = by_scan.iter().flat_map(|sorted| sorted.buffers().map(Buffer::clone));
        let buffers = buffers.chain([&lists].into_iter().chain(&judged).flat_map(of_lists));
        let buffers: Vec<Buffer> = buffers.chain(passed.iter().map(|passed| passed.state.clone())).collect();
        let read = recorder.read_all(&buffers.iter().collect::<Vec<_>>())?;
        let (read, states) = read.split_at(read.len() - passed.len());
        if lack(&passed, states) {
            return Ok(None);
        }
        let mut found = vec![ScoredCandidates::default(); range.len()];
        let mut pairs = read.chunks_exact(2);
        for (sorted, bytes) in by_scan.iter().zip(&mut pairs) {
            let hits = sorted.hits(&bytes[0], &bytes[1]);
            let per_query = hits.len() / range.len().max(1);
            found
                .iter_mut()
                .zip(hits.chunks(per_query.max(1)))
                .for_each(|(found, hits)| found.by_vector.extend_from_slice(hits));
        }
        let mut listed =
            |lists: &HitLists| pairs.next().map_or_else(Hits::new, |bytes| lists.listed(&bytes[0], &bytes[1]));
        found.iter_mut().zip(listed(&lists)).for_each(|(found, hits)| found.scored = hits);
        if let Some(judged) = &judged {
            found.iter_mut().zip(listed(judged)).for_each(|(found, hits)| found.distilled = hits);
        }
        Ok(Some(found))
    }
}

/// Whether some list lacks hits, going by the bytes of its state.
fn lack(passed: &[Passed], states: &[Vec<u8>]) -> bool {
    passed.iter().zip(states).any(|(passed, state)| passed.lacking(state).contains(&true))
}
