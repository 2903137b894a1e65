//! One consistent version of an index: its segments as one range of positions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::cost;
use super::enlarged::Enlarged;
use super::filter::PerSegment;
use super::{Filter, Segment};
use crate::backend::{
    CandidateScan, Columns, DeviceIndex, Exclusions, Hits, PreparedQueries, QueryBatch, Retrieval, Retrieved,
    ScoredPosition, Scorer, SearchContext, Similarity,
};
use crate::error::Parameter;
use crate::learn::Sample;
use crate::model::InputRange;
use crate::tables::Dtype;
use crate::tensor::Tensor;
use crate::{Error, Result};

static STAMPS: AtomicU64 = AtomicU64::new(0);

/// A version of an index. Positions count through the segments, one after the other; ids ascend within a segment only, so
/// ties are broken by ids here.
pub struct Snapshot {
    version: u64,
    /// No other snapshot of this process has it.
    stamp: u64,
    pub(super) segments: Vec<Segment>,
    /// Position of the first item of each segment, and the end.
    offsets: Vec<u32>,
    pub(super) similarity: Option<Arc<Similarity>>,
    pub(super) dtype: Dtype,
    range: Arc<InputRange>,
    /// Drawn when it is first asked for.
    sample: OnceLock<Option<Sample>>,
}

/// What the queries of a search must not find, for each segment.
pub struct Excluded {
    per_segment: Vec<Exclusions>,
}

impl Snapshot {
    /// A version made of `segments`.
    ///
    /// # Errors
    /// If there are 2^32 items or more.
    pub(super) fn new(
        version: u64,
        segments: Vec<Segment>,
        similarity: Option<Arc<Similarity>>,
        (dtype, range): (Dtype, Arc<InputRange>),
    ) -> Result<Snapshot> {
        let mut offsets = vec![0u32];
        for segment in &segments {
            let end = offsets[offsets.len() - 1] as usize + segment.len();
            let too_many = || Error::argument(Parameter::ItemIds, "fewer than 2^32, deleted ones included", end);
            offsets.push(u32::try_from(end).map_err(|_| too_many())?);
        }
        let stamp = STAMPS.fetch_add(1, Ordering::Relaxed);
        Ok(Snapshot { version, stamp, segments, offsets, similarity, dtype, range, sample: OnceLock::new() })
    }

    /// Number of items that can be found.
    pub fn len(&self) -> usize {
        self.segments.iter().map(Segment::n_live).sum()
    }

    /// Whether no item can be found.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Counts changes of the index.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Number format of the tables.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The segments.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The Mixture-of-Logits similarity, if there is one.
    pub fn similarity(&self) -> Option<&Similarity> {
        self.similarity.as_deref()
    }

    /// Whether these queries can be scored, and the files of the segments are as long as they were.
    ///
    /// # Errors
    /// As [`InputRange::check_queries`], or as [`Shard::check_length`](crate::store::Shard::check_length).
    pub fn check_queries(&self, queries: &QueryBatch) -> Result<()> {
        self.check_files()?;
        self.range.check_queries(&queries.embeddings)?;
        match &queries.user_ids {
            Some(users) if users.len() != queries.len() => {
                let expected = format!("{}, one per query", queries.len());
                Err(Error::argument(Parameter::UserIds, expected, users.len()))
            }
            _ => Ok(()),
        }
    }

    /// Whether the files of the segments are as long as they were when they were mapped.
    ///
    /// # Errors
    /// As [`Shard::check_length`](crate::store::Shard::check_length).
    pub(super) fn check_files(&self) -> Result<()> {
        self.segments.iter().try_for_each(Segment::check_length)
    }

    /// Some of the items on the host, if there is a Mixture-of-Logits similarity and an item.
    ///
    /// # Errors
    /// If tables do not suit the similarity.
    pub fn sample(&self) -> Result<Option<&Sample>> {
        let drawn = match (self.sample.get(), &self.similarity) {
            (Some(drawn), _) => drawn,
            (None, None) => return Ok(None),
            (None, Some(similarity)) => {
                let segments = self.segments.iter();
                let parts: Vec<_> =
                    segments.map(|segment| (segment.tables().as_ref(), segment.deleted().map(Arc::as_ref))).collect();
                let drawn = Sample::draw(&parts, similarity)?;
                // Two first searches may both draw; the samples are the same.
                self.sample.get_or_init(|| drawn)
            }
        };
        Ok(drawn.as_ref())
    }

    /// Bytes of all tables.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(Segment::bytes).sum()
    }

    /// Ids that can be found, ascending.
    pub fn ids(&self) -> Vec<u64> {
        let live = |segment: &Segment, position: usize| {
            !segment.deleted().is_some_and(|deleted| deleted.contains(position as u32))
        };
        let of_segment = |segment: &Segment| -> Vec<u64> {
            let ids = segment.ids().iter().enumerate();
            ids.filter(|(position, _)| live(segment, *position)).map(|(_, id)| *id).collect()
        };
        let mut ids: Vec<u64> = self.segments.iter().flat_map(of_segment).collect();
        ids.sort_unstable();
        ids
    }

    /// Whether `id` can be found.
    pub fn contains(&self, id: u64) -> bool {
        self.segments.iter().any(|segment| segment.position(id).is_some())
    }

    /// Where the item `id` is, if it can be found.
    pub fn position(&self, id: u64) -> Option<u32> {
        let mut segments = self.segments.iter().zip(&self.offsets);
        segments.find_map(|(segment, offset)| Some(offset + segment.position(id)?))
    }

    /// The id at a position.
    pub fn id(&self, position: u32) -> u64 {
        let segment = self.segment_of(position);
        self.segments[segment].ids()[(position - self.offsets[segment]) as usize]
    }

    fn segment_of(&self, position: u32) -> usize {
        self.offsets.partition_point(|&offset| offset <= position) - 1
    }

    /// What `lists` of ids, one per query or none at all, and a filter exclude. Ids that are not in the index are passed
    /// over.
    pub fn exclude(&self, lists: &[&[u64]], filter: Option<&Filter>) -> Excluded {
        let denied: PerSegment = match filter {
            Some(filter) => filter.denied(self.stamp, &self.segments),
            None => Arc::new(self.segments.iter().map(|segment| segment.deleted().cloned()).collect()),
        };
        let segments = self.segments.iter().zip(denied.iter());
        Excluded { per_segment: segments.map(|(segment, denied)| segment.exclusions(lists, denied.clone())).collect() }
    }

    /// The same, and for each query some positions more, ascending.
    pub fn exclude_positions(&self, excluded: &Excluded, more: &[Vec<u32>]) -> Excluded {
        let joined = |(index, old): (usize, &Exclusions)| {
            let (from, to) = (self.offsets[index], self.offsets[index + 1]);
            let mut joined = Exclusions { offsets: vec![0], positions: Vec::new(), denied: old.denied.clone() };
            for (query, list) in more.iter().enumerate() {
                let range = list.partition_point(|&p| p < from)..list.partition_point(|&p| p < to);
                let mut positions: Vec<u32> = list[range].iter().map(|position| position - from).collect();
                positions.extend_from_slice(old.of(query));
                positions.sort_unstable();
                positions.dedup();
                joined.positions.extend(positions);
                joined.offsets.push(joined.positions.len() as u32);
            }
            joined
        };
        Excluded { per_segment: excluded.per_segment.iter().enumerate().map(joined).collect() }
    }

    /// What some of the queries exclude, in this order.
    pub fn select_queries(&self, excluded: &Excluded, queries: &[usize]) -> Excluded {
        let of = |exclusions: &Exclusions| exclusions.selected(queries.iter().copied());
        Excluded { per_segment: excluded.per_segment.iter().map(of).collect() }
    }

    /// How many items are left for `query`.
    pub fn left(&self, excluded: &Excluded, query: usize) -> usize {
        let segments = self.segments.iter().zip(&excluded.per_segment);
        segments.map(|(segment, excluded)| excluded.left(query, segment.len())).sum()
    }

    /// See [`DeviceIndex::scan`].
    ///
    /// # Errors
    /// As there.
    pub fn scan(
        &self,
        context: &SearchContext,
        scorer: Scorer,
        queries: &PreparedQueries,
        k: usize,
        excluded: &Excluded,
    ) -> Result<Hits> {
        let enlarged = Enlarged::of(scorer, queries.batch());
        if let Some(enlarged) = enlarged {
            let mut hits = self.scan(context, scorer, &enlarged.queries.prepared(), k, excluded)?;
            let lists = hits.iter_mut().enumerate();
            lists.for_each(|(query, hits)| hits.iter_mut().for_each(|hit| enlarged.restore(query, &mut hit.score)));
            return Ok(hits);
        }
        self.best(context, k, excluded, |device, k, excluded, segment| {
            context.reads(segment.len(), cost::of_scorer(segment.tables(), scorer));
            device.scan(context, scorer, queries, k, excluded)
        })
    }

    /// See [`DeviceIndex::scan_pruned`].
    ///
    /// # Errors
    /// As there.
    pub fn scan_pruned(
        &self,
        context: &SearchContext,
        queries: &PreparedQueries,
        k: usize,
        excluded: &Excluded,
    ) -> Result<(Hits, u64)> {
        let found = self.each(context, excluded, |device, excluded, segment| {
            context.reads(segment.len(), cost::of_scorer(segment.tables(), Scorer::Mol));
            device.scan_pruned(context, queries, k.min(segment.len()), excluded)
        })?;
        let (hits, pruned): (Vec<Hits>, Vec<u64>) = found.into_iter().unzip();
        Ok((self.merged(hits, k), pruned.iter().sum()))
    }

    /// See [`DeviceIndex::scan_components`]; `per_query` vectors of each query, one after the other.
    ///
    /// # Errors
    /// As there.
    pub fn scan_components(
        &self,
        context: &SearchContext,
        vectors: &Tensor,
        columns: Columns,
        (k, per_query): (usize, usize),
        excluded: &Excluded,
    ) -> Result<Hits> {
        self.best(context, k, excluded, |device, k, excluded, segment| {
            context.reads(segment.len(), cost::of_columns(segment.tables(), columns));
            let excluded = excluded.repeated(vectors.rows() / per_query, per_query);
            device.scan_components(context, vectors, columns, k, &excluded)
        })
    }

    /// See [`DeviceIndex::scan_lists`]; segments that have no such lists are scanned as a whole.
    ///
    /// # Errors
    /// As there.
    pub fn scan_lists(
        &self,
        context: &SearchContext,
        vectors: &Tensor,
        columns: Columns,
        n_probe: usize,
        (k, per_query): (usize, usize),
        excluded: &Excluded,
    ) -> Result<Hits> {
        self.best(context, k, excluded, |device, k, excluded, segment| {
            let excluded = excluded.repeated(vectors.rows() / per_query, per_query);
            let lists = &segment.tables().lists;
            match lists.iter().position(|lists| lists.columns == columns) {
                Some(i) => {
                    let probes = lists[i].probes(vectors, n_probe);
                    context.reads(lists[i].n_probed(&probes), cost::of(&lists[i].vectors));
                    device.scan_lists(context, i, vectors, &probes, k, &excluded)
                }
                None => {
                    context.reads(segment.len(), cost::of_columns(segment.tables(), columns));
                    device.scan_components(context, vectors, columns, k, &excluded)
                }
            }
        })
    }

    /// See [`DeviceIndex::above`].
    ///
    /// # Errors
    /// As there.
    pub fn above(
        &self,
        context: &SearchContext,
        vectors: &Tensor,
        columns: Columns,
        thresholds: &[f32],
        excluded: &Excluded,
    ) -> Result<Vec<Vec<u32>>> {
        let found = self.each(context, excluded, |device, excluded, segment| {
            context.reads(segment.len(), cost::of_columns(segment.tables(), columns));
            device.above(context, vectors, columns, thresholds, excluded)
        })?;
        let mut lists = vec![Vec::new(); vectors.rows()];
        for (found, offset) in found.into_iter().zip(&self.offsets) {
            for (list, positions) in lists.iter_mut().zip(found) {
                list.extend(positions.into_iter().map(|position| position + offset));
            }
        }
        Ok(lists)
    }

    /// See [`DeviceIndex::rescore`]; candidates ascend. Inner products, too.
    ///
    /// # Errors
    /// As there.
    pub fn rescore(
        &self,
        context: &SearchContext,
        scorer: Scorer,
        queries: &PreparedQueries,
        candidates: &[Vec<u32>],
    ) -> Result<Vec<Vec<f32>>> {
        let enlarged = Enlarged::of(scorer, queries.batch());
        if let Some(enlarged) = enlarged {
            let mut scores = self.rescore(context, scorer, &enlarged.queries.prepared(), candidates)?;
            let lists = scores.iter_mut().enumerate();
            lists.for_each(|(query, scores)| scores.iter_mut().for_each(|score| enlarged.restore(query, score)));
            return Ok(scores);
        }
        let rescore = |segment: &Segment, candidates: &[Vec<u32>]| {
            context.reads(candidates.iter().map(Vec::len).sum(), cost::of_scorer(segment.tables(), scorer));
            match scorer {
                Scorer::Dot => segment.inner_products(context, queries, candidates),
                _ => segment.on_device(context, |device| device.rescore(context, scorer, queries, candidates)),
            }
        };
        if let [segment] = self.segments.as_slice() {
            return rescore(segment, candidates);
        }
        let none = Excluded { per_segment: vec![Exclusions::default(); self.segments.len()] };
        let parts = self.each_segment(&none, |segment, index, _| {
            let (from, to) = (self.offsets[index], self.offsets[index + 1]);
            let part = |list: &Vec<u32>| -> Vec<u32> {
                let range = list.partition_point(|&p| p < from)..list.partition_point(|&p| p < to);
                list[range].iter().map(|position| position - from).collect()
            };
            let part: Vec<Vec<u32>> = candidates.iter().map(part).collect();
            if part.iter().all(Vec::is_empty) {
                return Ok(vec![Vec::new(); part.len()]);
            }
            rescore(segment, &part)
        })?;
        let mut scores: Vec<Vec<f32>> = candidates.iter().map(|list| Vec::with_capacity(list.len())).collect();
        parts.into_iter().for_each(|part| scores.iter_mut().zip(part).for_each(|(all, part)| all.extend(part)));
        Ok(scores)
    }

    /// Whether [`Snapshot::retrieve`] can do this: on one segment, whose device can.
    pub fn retrieves(&self, retrieval: &Retrieval) -> bool {
        matches!(self.segments.as_slice(), [segment] if segment.backend().retrieves(retrieval))
    }

    /// See [`DeviceIndex::retrieve`].
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
        let [segment] = self.segments.as_slice() else { return Ok(None) };
        let retrieved = segment.on_device(context, |device| {
            device.retrieve(context, retrieval, queries, (k, keep), &excluded.per_segment[0])
        })?;
        if let Some(retrieved) = &retrieved {
            let left = |query| self.left(excluded, query);
            let judged = |n: usize| (0..queries.batch().len()).map(|query| n.min(left(query))).sum();
            let tables = segment.tables();
            for scan in &retrieval.scans {
                match scan {
                    CandidateScan::Best { columns, n, .. } | CandidateScan::Lists { columns, n, .. } => {
                        context.reads(segment.len(), cost::of_columns(tables, *columns));
                        if retrieval.distilled.is_some() {
                            context.reads(judged(*n), cost::of_scorer(tables, Scorer::Distilled));
                        }
                    }
                    CandidateScan::Above { columns, .. } => {
                        context.reads(segment.len(), cost::of_columns(tables, *columns));
                    }
                    CandidateScan::Distilled { .. } => {
                        context.reads(segment.len(), cost::of_scorer(tables, Scorer::Distilled));
                    }
                }
            }
            let scored = retrieved.iter().map(|retrieved| retrieved.n_candidates).sum();
            context.reads(scored, cost::of_scorer(tables, Scorer::Mol));
        }
        Ok(retrieved)
    }

    /// Hits in the order of a result: by score descending, then id ascending.
    pub fn sort(&self, hits: &mut [ScoredPosition]) {
        hits.sort_unstable_by(|a, b| {
            b.score.total_cmp(&a.score).then_with(|| self.id(a.position).cmp(&self.id(b.position)))
        });
    }

    /// The best `k` of what `scan` finds in each segment.
    fn best(
        &self,
        context: &SearchContext,
        k: usize,
        excluded: &Excluded,
        scan: impl Fn(&dyn DeviceIndex, usize, &Exclusions, &Segment) -> Result<Hits> + Sync,
    ) -> Result<Hits> {
        let found = self.each_segment(excluded, |segment, _, excluded| {
            segment.on_device(context, |device| scan(device, k.min(segment.len()), excluded, segment))
        })?;
        Ok(self.merged(found, k))
    }

    fn each<T: Send>(
        &self,
        context: &SearchContext,
        excluded: &Excluded,
        work: impl Fn(&dyn DeviceIndex, &Exclusions, &Segment) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        self.each_segment(excluded, |segment, _, excluded| {
            segment.on_device(context, |device| work(device, excluded, segment))
        })
    }

    /// Runs `work` on every segment: those of one device one after the other, different devices at the same time.
    fn each_segment<T: Send>(
        &self,
        excluded: &Excluded,
        work: impl Fn(&Segment, usize, &Exclusions) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let run = |index: usize| work(&self.segments[index], index, &excluded.per_segment[index]);
        let device = |index: usize| Arc::as_ptr(self.segments[index].backend()).cast::<()>();
        let mut devices: Vec<*const ()> = Vec::new();
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for index in 0..self.segments.len() {
            match devices.iter().position(|&other| other == device(index)) {
                Some(group) => groups[group].push(index),
                None => {
                    devices.push(device(index));
                    groups.push(vec![index]);
                }
            }
        }
        if groups.len() <= 1 {
            return (0..self.segments.len()).map(run).collect();
        }
        let mut results: Vec<Option<Result<T>>> = (0..self.segments.len()).map(|_| None).collect();
        let done = std::thread::scope(|scope| {
            let run = &run;
            let spawn = |group: &Vec<usize>| {
                let group = group.clone();
                scope.spawn(move || group.into_iter().map(|index| (index, run(index))).collect::<Vec<_>>())
            };
            let threads: Vec<_> = groups.iter().map(spawn).collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).flatten().collect::<Vec<_>>()
        });
        done.into_iter().for_each(|(index, result)| results[index] = Some(result));
        let ended = || Error::Device { device: "worker".to_string(), what: "ended without an answer".to_string() };
        results.into_iter().map(|result| result.unwrap_or_else(|| Err(ended()))).collect()
    }

    /// The best `k` of each query, of lists for each segment.
    fn merged(&self, mut found: Vec<Hits>, k: usize) -> Hits {
        if found.len() == 1 {
            return found.remove(0);
        }
        let n_queries = found.first().map_or(0, Vec::len);
        let mut merged: Hits = vec![Vec::new(); n_queries];
        for (hits, offset) in found.into_iter().zip(&self.offsets) {
            for (merged, hits) in merged.iter_mut().zip(hits) {
                merged.extend(hits.into_iter().map(|hit| ScoredPosition { position: hit.position + offset, ..hit }));
            }
        }
        for hits in &mut merged {
            self.sort(hits);
            hits.truncate(k);
        }
        merged
    }
}
