//! One consistent version of an index: its segments as one range of positions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::excluded::Excluded;
use super::filter::PerSegment;
use super::{Filter, Segment, id_of_string};
use crate::backend::{Exclusions, QueryBatch, ScoredPosition, Scorer, Similarity};
use crate::error::Parameter;
use crate::learn::Sample;
use crate::model::InputRange;
use crate::tables::Dtype;
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
    pub(super) offsets: Vec<u32>,
    pub(super) similarity: Option<Arc<Similarity>>,
    pub(super) dtype: Dtype,
    range: Arc<InputRange>,
    /// Drawn when it is first asked for.
    sample: OnceLock<Option<Sample>>,
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

    /// What scores a pair exactly: the learned similarity, late interaction where items have token embeddings, else the inner
    /// product.
    pub fn scorer(&self) -> Scorer {
        match (&self.similarity, self.range.is_of_tokens()) {
            (Some(_), _) => Scorer::Mol,
            (None, true) => Scorer::MaxSim,
            (None, false) => Scorer::Dot,
        }
    }

    /// Whether these queries can be scored, and the files of the segments are as long as they were.
    ///
    /// # Errors
    /// As [`InputRange::check_queries`], or as [`Shard::check_length`](crate::store::Shard::check_length).
    pub fn check_queries(&self, queries: &QueryBatch) -> Result<()> {
        self.check_files()?;
        self.range.check_queries(&queries.embeddings, queries.token_embeddings.as_ref())?;
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
    pub(crate) fn check_files(&self) -> Result<()> {
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

    /// String ids that can be found, in the order of their numbers; none if ids are numbers.
    pub fn string_ids(&self) -> Vec<String> {
        self.ids().into_iter().filter_map(|id| self.string_id(id)).map(str::to_string).collect()
    }

    /// The string id of the item `id`, if it can be found and ids are strings.
    pub fn string_id(&self, id: u64) -> Option<&str> {
        self.segments.iter().find_map(|segment| Some(segment.strings()?.get(segment.position(id)? as usize)))
    }

    /// The number of a string id, if there is an item with it.
    pub fn id_of(&self, string: &str) -> Option<u64> {
        let id = id_of_string(string);
        (self.string_id(id)? == string).then_some(id)
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
        let per_segment = segments.map(|(segment, denied)| segment.exclusions(lists, denied.clone())).collect();
        Excluded { per_segment, matching: None }
    }

    /// Whether `query` must not find the item at `position`.
    pub fn excludes(&self, excluded: &Excluded, query: usize, position: u32) -> bool {
        let segment = self.segment_of(position);
        excluded.per_segment[segment].excludes(query, position - self.offsets[segment])
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
        let per_segment = excluded.per_segment.iter().enumerate().map(joined).collect();
        Excluded { per_segment, matching: excluded.matching.clone() }
    }

    /// What some of the queries exclude, in this order.
    pub fn select_queries(&self, excluded: &Excluded, queries: &[usize]) -> Excluded {
        let of = |exclusions: &Exclusions| exclusions.selected(queries.iter().copied());
        Excluded { per_segment: excluded.per_segment.iter().map(of).collect(), matching: excluded.matching.clone() }
    }

    /// How many items are left for `query`.
    pub fn left(&self, excluded: &Excluded, query: usize) -> usize {
        let segments = self.segments.iter().zip(&excluded.per_segment);
        segments.map(|(segment, excluded)| excluded.left(query, segment.len())).sum()
    }

    /// Hits in the order of a result: by score descending, then id ascending.
    pub fn sort(&self, hits: &mut [ScoredPosition]) {
        // Lists of segments one after the other, each in order, are merged by a stable sort.
        hits.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| self.id(a.position).cmp(&self.id(b.position))));
    }
}
