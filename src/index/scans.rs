//! Scans of a snapshot: of each segment on its device, and what they have found as one result.

use std::sync::Arc;

use super::cost;
use super::enlarged::Enlarged;
use super::{Excluded, Segment, Snapshot};
use crate::backend::{
    Columns, DeviceIndex, Exclusions, Hits, PreparedQueries, Probes, ScoredPosition, Scorer, SearchContext,
};
use crate::tensor::Tensor;
use crate::{Error, Result};

impl Snapshot {
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
            match segment.probes(vectors, columns, n_probe) {
                Some(Probes { lists, of_vectors }) => {
                    let tables = &segment.tables().lists[lists];
                    context.reads(tables.n_probed(&of_vectors), cost::of(&tables.vectors));
                    device.scan_lists(context, lists, vectors, &of_vectors, k, &excluded)
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

    /// The positions of the best `k` of each segment by [`Scorer::Centroids`]: segments without centroids score their items with all
    /// vectors, higher than centroids would, so that scores of different segments say nothing of each other.
    ///
    /// # Errors
    /// As [`DeviceIndex::scan`].
    pub fn scan_centroids(
        &self,
        context: &SearchContext,
        queries: &PreparedQueries,
        k: usize,
        excluded: &Excluded,
    ) -> Result<Vec<Vec<u32>>> {
        let found = self.each(context, excluded, |device, excluded, segment| {
            context.reads(segment.len(), cost::of_scorer(segment.tables(), Scorer::Centroids));
            device.scan(context, Scorer::Centroids, queries, k.min(segment.len()), excluded)
        })?;
        let mut lists = vec![Vec::new(); queries.batch().len()];
        for (found, offset) in found.into_iter().zip(&self.offsets) {
            for (list, hits) in lists.iter_mut().zip(found) {
                list.extend(hits.into_iter().map(|hit| hit.position + offset));
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
        let none = Excluded { per_segment: vec![Exclusions::default(); self.segments.len()], matching: None };
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

    pub(super) fn each<T: Send>(
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
