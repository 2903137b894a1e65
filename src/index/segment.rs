//! A segment: items that are built, stored and searched together, never changed afterwards.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::StringIds;
use super::segment_attributes::SegmentAttributes;
use crate::backend::{
    Backend, Bits, DeviceIndex, Exclusions, PreparedQueries, QueryBatch, ScoredPosition, Scorer, SearchContext,
    Similarity,
};
use crate::error::Parameter;
use crate::store::Shard;
use crate::tables::{Bytes, Table, Tables};
use crate::{Error, Result};

/// Most scores of [`Segment::inner_products`] at a time, unless a single query has more candidates.
const MOST_SCORES: usize = 1 << 22;

/// Items with ascending ids, and their tables.
#[derive(Clone)]
pub struct Segment {
    ids: Arc<Bytes<u64>>,
    /// The strings that they stand for, if ids are strings.
    strings: Option<Arc<StringIds>>,
    tables: Arc<Tables>,
    /// Attributes of the items, if those of the index have some.
    attributes: Option<Arc<SegmentAttributes>>,
    /// Items that have been removed or replaced since.
    deleted: Option<Arc<Bits>>,
    home: Arc<Home>,
    /// The file that it is stored in, if it is.
    file: Option<Shard>,
}

/// Where a segment is searched.
struct Home {
    backend: Arc<dyn Backend>,
    similarity: Option<Arc<Similarity>>,
    /// Filled at the first search, unless the segment has to make room for others after each.
    device: OnceLock<Box<dyn DeviceIndex>>,
    streamed: bool,
}

impl Segment {
    /// Items `ids`, ascending, one per item of the tables.
    pub fn new(
        ids: Bytes<u64>,
        tables: Arc<Tables>,
        backend: Arc<dyn Backend>,
        similarity: Option<Arc<Similarity>>,
    ) -> Segment {
        let home = Home { backend, similarity, device: OnceLock::new(), streamed: false };
        let (strings, attributes, deleted, file) = (None, None, None, None);
        Segment { ids: Arc::new(ids), strings, tables, attributes, deleted, home: Arc::new(home), file }
    }

    /// The same segment, whose ids stand for these strings.
    pub(super) fn with_strings(self, strings: Option<StringIds>) -> Segment {
        Segment { strings: strings.map(Arc::new), ..self }
    }

    /// The strings that the ids stand for, if ids are strings.
    pub fn strings(&self) -> Option<&StringIds> {
        self.strings.as_deref()
    }

    /// The same segment, whose items have these attributes.
    pub(super) fn with_attributes(self, attributes: Option<SegmentAttributes>) -> Segment {
        Segment { attributes: attributes.map(Arc::new), ..self }
    }

    /// Attributes of the items, if those of the index have some.
    pub(super) fn attributes(&self) -> Option<&SegmentAttributes> {
        self.attributes.as_deref()
    }

    /// Name of the file of the attributes in the index folder, if they are stored in one.
    pub(super) fn attribute_file(&self) -> Option<&str> {
        self.attributes.as_ref()?.file.as_ref().map(Shard::name)
    }

    /// The same segment, known to be stored in `file` of the index folder.
    pub(super) fn stored_in(self, file: &Shard) -> Segment {
        Segment { file: Some(file.clone()), ..self }
    }

    /// Whether its files, if it is stored in some, are as long as they were.
    ///
    /// # Errors
    /// As [`Shard::check_length`].
    pub(super) fn check_length(&self) -> Result<()> {
        let of_attributes = self.attributes.as_ref().and_then(|attributes| attributes.file.as_ref());
        self.file.iter().chain(of_attributes).try_for_each(Shard::check_length)
    }

    /// Name of the file in the index folder, if it is stored in one.
    pub fn file(&self) -> Option<&str> {
        self.file.as_ref().map(Shard::name)
    }

    /// Ids, ascending; also of deleted items.
    pub fn ids(&self) -> &[u64] {
        self.ids.as_slice()
    }

    /// Host tables.
    pub fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }

    /// Items that are not found any more.
    pub fn deleted(&self) -> Option<&Arc<Bits>> {
        self.deleted.as_ref()
    }

    /// Number of items, deleted ones included.
    pub fn len(&self) -> usize {
        self.ids().len()
    }

    /// Whether there is no item, deleted or not.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of items that can be found.
    pub fn n_live(&self) -> usize {
        self.len() - self.deleted.as_ref().map_or(0, |deleted| deleted.count())
    }

    /// The device that searches it.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.home.backend
    }

    /// Where `id` is, if it is here and not deleted.
    pub fn position(&self, id: u64) -> Option<u32> {
        let position = self.ids().binary_search(&id).ok()? as u32;
        (!self.deleted.as_ref().is_some_and(|deleted| deleted.contains(position))).then_some(position)
    }

    /// The same segment with other deletions.
    pub fn with_deleted(&self, deleted: Bits) -> Segment {
        Segment { deleted: (deleted.count() > 0).then(|| Arc::new(deleted)), ..self.clone() }
    }

    /// The same segment with all of its items.
    pub(super) fn undeleted(&self) -> Segment {
        Segment { deleted: None, ..self.clone() }
    }

    /// The same segment without the items `gone`; `None` if it has none of them.
    pub fn without(&self, gone: &[u64]) -> Option<Segment> {
        let positions: Vec<u32> = gone.iter().filter_map(|&id| self.position(id)).collect();
        if positions.is_empty() {
            return None;
        }
        let mut deleted =
            self.deleted.as_ref().map_or_else(|| Bits::new(self.len(), |_| false), |deleted| (**deleted).clone());
        positions.into_iter().for_each(|position| deleted.insert(position));
        Some(self.with_deleted(deleted))
    }

    /// The same segment on another device.
    pub(super) fn on(&self, backend: &Arc<dyn Backend>) -> Segment {
        let similarity = self.home.similarity.clone();
        let home = Home { backend: backend.clone(), similarity, device: OnceLock::new(), streamed: false };
        Segment { home: Arc::new(home), ..self.clone() }
    }

    /// The same segment, searched by this similarity.
    pub(super) fn searched_by(self, similarity: Option<&Arc<Similarity>>) -> Segment {
        if self.home.similarity.as_ref().map(Arc::as_ptr) == similarity.map(Arc::as_ptr) {
            return self;
        }
        let Home { backend, streamed, .. } = &*self.home;
        let (backend, similarity) = (backend.clone(), similarity.cloned());
        Segment { home: Arc::new(Home { backend, similarity, device: OnceLock::new(), streamed: *streamed }), ..self }
    }

    /// The same segment, on the device always or, `streamed`, only while it is searched.
    pub fn streamed(self, streamed: bool) -> Segment {
        if self.home.streamed == streamed {
            return self;
        }
        let Home { backend, similarity, .. } = &*self.home;
        let (backend, similarity) = (backend.clone(), similarity.clone());
        Segment { home: Arc::new(Home { backend, similarity, device: OnceLock::new(), streamed }), ..self }
    }

    /// Moves the tables to the device, so that the first search does not have to, unless they are streamed.
    ///
    /// # Errors
    /// As [`Backend::load`].
    pub fn load(&self) -> Result<()> {
        if self.home.streamed { Ok(()) } else { self.on_device(&SearchContext::default(), |_| Ok(())) }
    }

    /// Runs `work` on the tables on their device, for a search that is still wanted.
    ///
    /// # Errors
    /// As [`Backend::load`], those of `work`, or if the search was cancelled before or meanwhile.
    pub fn on_device<T>(&self, context: &SearchContext, work: impl FnOnce(&dyn DeviceIndex) -> Result<T>) -> Result<T> {
        let Home { backend, similarity, device, streamed } = &*self.home;
        // What a device finds while the search is cancelled is not all of it.
        let work = |device: &dyn DeviceIndex| work(device).and_then(|found| context.check().map(|()| found));
        context.check()?;
        let load = || backend.load(context, self.tables.clone(), similarity.as_deref());
        if *streamed {
            return work(load()?.as_ref());
        }
        let loaded = match device.get() {
            Some(loaded) => loaded,
            None => {
                // Two first searches may both load; one of the results is kept.
                let _ = device.set(load()?);
                device.get().ok_or_else(|| Error::argument(Parameter::Segment, "loaded tables", "none"))?
            }
        };
        work(loaded.as_ref())
    }

    /// The inner products of each query with its `candidates`, positions: the bits that a scan finds.
    ///
    /// # Errors
    /// As [`Segment::on_device`].
    pub fn inner_products(
        &self,
        context: &SearchContext,
        queries: &PreparedQueries,
        candidates: &[Vec<u32>],
    ) -> Result<Vec<Vec<f32>>> {
        let mut scores = Vec::with_capacity(candidates.len());
        for (range, union) in unions(candidates, MOST_SCORES) {
            context.check()?;
            let rows: Vec<usize> = range.clone().collect();
            let some = QueryBatch::new(queries.batch().embeddings.select_rows(&rows));
            scores.extend(self.inner_products_with(context, &some.prepared(), &union, &candidates[range])?);
        }
        Ok(scores)
    }

    /// [`Segment::inner_products`] by a scan of the `union` of all candidates.
    fn inner_products_with(
        &self,
        context: &SearchContext,
        queries: &PreparedQueries,
        union: &[u32],
        candidates: &[Vec<u32>],
    ) -> Result<Vec<Vec<f32>>> {
        if union.is_empty() {
            return Ok(vec![Vec::new(); candidates.len()]);
        }
        let raw = &self.tables.raw;
        let mut picked = Table::new(raw.groups(), raw.group_width(), raw.dtype());
        union.iter().for_each(|&position| picked.append_row_of(raw, position as usize));
        let tables = Tables { raw: picked, mol: None, tokens: None, lists: Vec::new() };
        let device = self.home.backend.load(context, Arc::new(tables), None)?;
        let hits = device.scan(context, Scorer::Dot, queries, union.len(), &Exclusions::default())?;
        let scores_of = |(hits, list): (Vec<ScoredPosition>, &Vec<u32>)| {
            let mut scores = vec![f32::NAN; union.len()];
            hits.into_iter().for_each(|hit| scores[hit.position as usize] = hit.score);
            let place = |position: &u32| union.partition_point(|other| other < position);
            list.iter().map(|position| scores[place(position)]).collect()
        };
        Ok(hits.into_iter().zip(candidates).map(scores_of).collect())
    }

    /// Bytes on the device, or that pass through it.
    pub fn bytes(&self) -> u64 {
        self.home.device.get().map_or_else(|| self.tables.bytes(), |device| device.bytes())
    }

    /// Positions that each query must not find: those of its `lists` of ids, and those that are `denied`.
    pub fn exclusions(&self, lists: &[&[u64]], denied: Option<Arc<Bits>>) -> Exclusions {
        let mut exclusions = Exclusions { denied, ..Exclusions::default() };
        if lists.is_empty() {
            return exclusions;
        }
        exclusions.offsets.push(0);
        for list in lists {
            let mut positions: Vec<u32> = list.iter().filter_map(|&id| self.position(id)).collect();
            positions.sort_unstable();
            positions.dedup();
            exclusions.positions.extend(positions);
            exclusions.offsets.push(exclusions.positions.len() as u32);
        }
        exclusions
    }
}

/// Ranges of lists, each with the union of its lists, ascending: ranges of one list, or where lists times positions are at most
/// `most`.
fn unions(lists: &[Vec<u32>], most: usize) -> Vec<(Range<usize>, Vec<u32>)> {
    let mut unions: Vec<(Range<usize>, Vec<u32>)> = Vec::new();
    for (index, list) in lists.iter().enumerate() {
        if let Some((range, union)) = unions.last_mut() {
            let mut joined = [union.as_slice(), list].concat();
            // Fast where parts are in order already.
            joined.sort();
            joined.dedup();
            if (range.len() + 1) * joined.len() <= most {
                (range.end, *union) = (index + 1, joined);
                continue;
            }
        }
        let mut union = list.clone();
        union.sort_unstable();
        union.dedup();
        unions.push((index..index + 1, union));
    }
    unions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_scored_together_as_far_as_the_scores_are_few() {
        let lists = [vec![1, 5], vec![5, 2], vec![7, 8, 9], vec![], vec![9]];
        let found = unions(&lists, 6);
        assert_eq!(found, [(0..2, vec![1, 2, 5]), (2..4, vec![7, 8, 9]), (4..5, vec![9])]);
        // The same candidates of all queries are scored at once, different ones are not.
        let same = vec![(0..4096).collect::<Vec<u32>>(); 64];
        let apart: Vec<Vec<u32>> = (0..64).map(|query| (query * 4096..(query + 1) * 4096).collect()).collect();
        assert_eq!(unions(&same, MOST_SCORES).len(), 1);
        let sizes: Vec<usize> =
            unions(&apart, MOST_SCORES).iter().map(|(range, union)| range.len() * union.len()).collect();
        assert_eq!(sizes, [MOST_SCORES; 2]);
    }
}
