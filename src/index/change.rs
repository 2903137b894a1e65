//! The making of the next version: what is written to a folder is there before anybody sees it.

use std::sync::{Arc, MutexGuard};

use super::disk::Folder;
use super::segment_attributes::SegmentAttributes;
use super::{ItemIndex, Segment, Snapshot, StringIds};
use crate::Result;
use crate::backend::Similarity;
use crate::store::Transaction;
use crate::tables::Bytes;

/// The only change of an index that is going on. Dropped without a commit, it has changed nothing.
pub(super) struct Change<'a> {
    index: &'a ItemIndex,
    folder: MutexGuard<'a, Option<Folder>>,
    transaction: Option<Transaction>,
    /// What is changed; for an index in a folder the latest version there, whoever made it.
    pub old: Arc<Snapshot>,
    /// What the next version is searched by; at first as the old one.
    pub similarity: Option<Arc<Similarity>>,
}

impl<'a> Change<'a> {
    /// Waits for other threads.
    ///
    /// # Errors
    /// If the folder cannot be written, another process is writing to it, or it has a newer version that cannot be read.
    pub fn begin(index: &'a ItemIndex) -> Result<Change<'a>> {
        let mut folder = index.lock();
        let mut transaction = None;
        if let Some(folder) = folder.as_mut() {
            let begun = folder.write()?;
            index.follow(folder, begun.base().clone())?;
            transaction = Some(begun);
        }
        let old = index.snapshot();
        old.check_files()?;
        let similarity = old.similarity.clone();
        Ok(Change { index, folder, transaction, old, similarity })
    }

    /// The live items of some segments as one segment on the device of the first, ids ascending. Rows are copied as they are.
    ///
    /// # Errors
    /// If a stored one is damaged: a new file would hide it.
    pub fn merge(&self, group: &[Segment]) -> Result<Segment> {
        if let Some(folder) = &*self.folder {
            group.iter().try_for_each(|segment| folder.check(segment))?;
        }
        let mut rows: Vec<(u64, usize, usize)> = Vec::new();
        for (index, segment) in group.iter().enumerate() {
            let live = |position: &usize| !segment.deleted().is_some_and(|bits| bits.contains(*position as u32));
            rows.extend((0..segment.len()).filter(live).map(|position| (segment.ids()[position], index, position)));
        }
        rows.sort_unstable();
        let mut tables = self.index.blueprint.empty_tables()?;
        for (_, index, position) in &rows {
            tables.append_row_of(group[*index].tables(), *position);
        }
        self.index.blueprint.cluster(group[0].backend().as_ref(), &mut tables)?;
        let ids = Bytes::Owned(rows.iter().map(|(id, ..)| *id).collect::<Vec<u64>>().into());
        let string = |(_, index, position): &(u64, usize, usize)| Some(group[*index].strings()?.get(*position));
        let strings = group[0].strings().map(|_| StringIds::new(rows.iter().filter_map(string)));
        let attributes: Vec<&SegmentAttributes> = group.iter().filter_map(Segment::attributes).collect();
        let places: Vec<(usize, usize)> = rows.iter().map(|(_, index, position)| (*index, *position)).collect();
        let attributes = SegmentAttributes::merged(&attributes, &places)?;
        let merged = self.index.blueprint.place(ids, Arc::new(tables), group[0].backend());
        Ok(merged.with_strings(strings).with_attributes(attributes))
    }

    /// One segment instead of several, unless it is one already and has no deletions.
    ///
    /// # Errors
    /// As [`Change::merge`].
    pub fn rewritten(&self, group: &[Segment]) -> Result<Option<Segment>> {
        Ok(match group {
            [] => None,
            [segment] if segment.deleted().is_none() => Some(segment.clone()),
            group => Some(self.merge(group)?),
        })
    }

    /// The same segment in a file of the folder, mapped, if there is a folder.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn stored(&self, segment: Segment) -> Result<Segment> {
        match (&self.transaction, &*self.folder) {
            (Some(transaction), Some(folder)) => folder.stored(&self.index.blueprint, transaction, segment),
            _ => Ok(segment),
        }
    }

    /// Makes `segments` the next version: on the disk, then on the devices, then for searches.
    ///
    /// # Errors
    /// If a device fails, or the folder cannot be written.
    pub fn commit(mut self, segments: Vec<Segment>) -> Result<()> {
        let live = segments.into_iter().filter(|segment| segment.n_live() > 0);
        let segments = live.map(|segment| self.stored(segment)).collect::<Result<Vec<_>>>()?;
        let (blueprint, old, similarity) = (&self.index.blueprint, &self.old, self.similarity.take());
        match (self.transaction.take(), self.folder.as_mut()) {
            (Some(transaction), Some(folder)) => {
                let snapshot = blueprint.snapshot(transaction.base().generation() + 1, segments, similarity)?;
                folder.commit(transaction, old, &snapshot)?;
                self.index.show(snapshot);
            }
            _ => self.index.show(blueprint.snapshot(old.version() + 1, segments, similarity)?),
        }
        Ok(())
    }
}
