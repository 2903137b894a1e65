//! An open index folder: from files to segments, and back.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::content::{Content, SegmentEntry, damaged};
use super::{IndexModel, deletions, model_file, segment_file};
use crate::Result;
use crate::backend::{Backend, DeviceKind, Similarity};
use crate::index::build::{Blueprint, least_used};
use crate::index::segment_attributes::SegmentAttributes;
use crate::index::{OpenOptions, Segment, Snapshot};
use crate::model::{InputRange, Model};
use crate::store::{Shard, Store, Transaction};

/// The version of a folder that an index has as its present one.
pub(in crate::index) struct Folder {
    store: Store,
    content: Content,
    options: OpenOptions,
}

impl Folder {
    pub fn new(store: Store, options: OpenOptions) -> Result<Folder> {
        let content = Content::read(&store)?;
        Ok(Folder { store, content, options })
    }

    pub fn path(&self) -> &Path {
        self.store.folder()
    }

    pub fn generation(&self) -> u64 {
        self.store.generation()
    }

    /// Begins the next version.
    pub fn write(&self) -> Result<Transaction> {
        self.store.write()
    }

    /// What all segments share.
    pub fn blueprint(&self) -> Result<Blueprint> {
        let Content { dim, .. } = self.content;
        let mol = match &self.content.model {
            Some(file) => model_file::read_similarity(self.store.shard(file)?, dim)?,
            None => None,
        };
        let similarity = mol.map(|mut mol| {
            if let Some(file) = &self.content.principal {
                let width = mol.config.item_dot_product_groups * mol.config.dot_product_dimension;
                mol.principal = Some(model_file::read_principal(self.store.shard(file)?, width)?);
            }
            let config = mol.config.clone();
            let distilled = self.content.distilled.as_ref();
            let read = |file: &String| model_file::read_distilled(self.store.shard(file)?, &config);
            Ok::<_, crate::Error>(Arc::new(Similarity { distilled: distilled.map(read).transpose()?, mol }))
        });
        let mut options = self.content.options();
        options.device_memory = self.options.device_memory;
        let similarity = similarity.transpose()?;
        let range = match self.content.token_embeddings {
            true => InputRange::of_tokens(dim),
            false => InputRange::new(similarity.as_ref().map(|similarity| &similarity.mol), dim),
        };
        let (has_string_ids, columns) = (self.content.string_ids, self.content.attributes.as_slice().into());
        Ok(Blueprint { has_string_ids, columns, ..Blueprint::new(options, similarity, Arc::new(range), 0)? })
    }

    /// The model with its encoder, if it is stored.
    pub fn model(&self) -> Result<Option<Model>> {
        let Some(file) = &self.content.model else { return Ok(None) };
        model_file::read_model(self.store.shard(file)?)
    }

    /// The names of the model's items, if they are stored.
    pub fn item_names(&self) -> Result<Option<Vec<String>>> {
        let Some(file) = &self.content.model else { return Ok(None) };
        model_file::read_item_names(self.store.shard(file)?)
    }

    /// The model as it is stored here, to be stored elsewhere. `similarity`: what it says of it.
    pub fn index_model(&self, similarity: Option<&Similarity>) -> Result<IndexModel> {
        let file = self.content.model.as_ref().map(|file| self.store.shard(file)).transpose()?;
        let model = file.map(|shard| IndexModel::stored(shard, self.content.dim, similarity.cloned()));
        let dim = self.content.dim;
        model.unwrap_or_else(|| {
            Ok(if self.content.token_embeddings { IndexModel::late_interaction(dim) } else { IndexModel::dot(dim) })
        })
    }

    /// Whether the encoder is stored.
    pub fn has_encoder(&self) -> bool {
        let shard = self.content.model.as_ref().and_then(|file| self.store.shard(file).ok());
        shard.is_some_and(model_file::has_encoder)
    }

    /// All segments of this version. Those that `known`, another version of the same folder, has as well stay as and where
    /// they are.
    pub fn segments(
        &self,
        blueprint: &Blueprint,
        backends: &[Arc<dyn Backend>],
        known: Option<(&Folder, &Snapshot)>,
    ) -> Result<Vec<Segment>> {
        let mut segments: Vec<Segment> = Vec::new();
        for entry in &self.content.segments {
            let same = known.and_then(|(folder, snapshot)| {
                let segment = snapshot.segments().iter().find(|segment| segment.file() == Some(&entry.file))?;
                self.has_same(folder, &entry.file).then_some((folder, segment))
            });
            let segment = match same {
                Some((_, segment)) => segment.clone(),
                None => self.read(blueprint, least_used(backends, &segments), entry)?,
            };
            let deletions_stay =
                same.is_some_and(|(folder, _)| match (&entry.deleted, folder.deletions_of(&entry.file)) {
                    (Some(new), Some(old)) => new == old && self.has_same(folder, new),
                    (new, old) => new.is_none() && old.is_none(),
                });
            segments.push(match &entry.deleted {
                _ if deletions_stay => segment,
                Some(file) => segment.with_deleted(deletions::read(self.store.shard(file)?, entry.items)?),
                None => segment.undeleted(),
            });
        }
        Ok(segments)
    }

    fn read(&self, blueprint: &Blueprint, backend: &Arc<dyn Backend>, entry: &SegmentEntry) -> Result<Segment> {
        let shard = self.store.shard(&entry.file)?;
        let check = self.options.check || backend.info().kind != DeviceKind::Cpu;
        let (ids, tables) = segment_file::read(shard, entry.items, blueprint.empty_tables()?, check)?;
        let strings =
            blueprint.has_string_ids.then(|| segment_file::read_strings(shard, ids.as_slice())).transpose()?;
        let attributes = match &entry.attributes {
            Some(file) => {
                let stored = of_attributes(blueprint, entry.items, self.store.shard(file)?)?;
                if self.options.check {
                    stored.check()?;
                }
                Some(stored)
            }
            None => None,
        };
        let segment = blueprint.place(ids, Arc::new(tables), backend).with_strings(strings);
        Ok(segment.with_attributes(attributes).stored_in(shard))
    }

    /// Compares a stored segment with its checksums.
    pub fn check(&self, segment: &Segment) -> Result<()> {
        segment.attributes().map_or(Ok(()), SegmentAttributes::check)?;
        let Some(file) = segment.file() else { return Ok(()) };
        // A segment that the transaction wrote itself is not in the store yet.
        let Ok(shard) = self.store.shard(file) else { return Ok(()) };
        shard.tensors().try_for_each(|tensor| shard.check(tensor))
    }

    /// `segment` in a file of `transaction`, mapped.
    pub fn stored(&self, blueprint: &Blueprint, transaction: &Transaction, segment: Segment) -> Result<Segment> {
        if segment.file().is_some() {
            return Ok(segment);
        }
        let file = segment_file::write(transaction, (segment.ids(), segment.strings()), segment.tables())?;
        let shard = transaction.shard(&file)?;
        let (ids, tables) = segment_file::read(&shard, segment.len(), blueprint.empty_tables()?, false)?;
        let strings =
            blueprint.has_string_ids.then(|| segment_file::read_strings(&shard, ids.as_slice())).transpose()?;
        let written = segment_file::write_attributes(transaction, segment.attributes())?;
        let attributes = written.map(|file| of_attributes(blueprint, segment.len(), &transaction.shard(&file)?));
        let placed = blueprint.place(ids, Arc::new(tables), segment.backend()).with_strings(strings);
        let placed = placed.with_attributes(attributes.transpose()?).stored_in(&shard);
        Ok(match segment.deleted() {
            Some(deleted) => placed.with_deleted((**deleted).clone()),
            None => placed,
        })
    }

    /// Makes `new`, whose segments are all stored, the version of the folder.
    pub fn commit(&mut self, mut transaction: Transaction, old: &Snapshot, new: &Snapshot) -> Result<()> {
        let mut content = self.content.without_segments();
        for segment in new.segments() {
            let unnamed = || damaged(self.path(), "a segment without a file");
            let file = segment.file().ok_or_else(unnamed)?.to_string();
            let before = old.segments().iter().find(|old| old.file() == Some(&file));
            let before = before.and_then(|old| Some((old.deleted()?, self.deletions_of(&file)?)));
            let deleted = match (segment.deleted(), before) {
                (None, _) => None,
                (Some(now), Some((before, file))) if Arc::ptr_eq(now, before) => Some(file.clone()),
                (Some(now), _) => Some(deletions::write(&transaction, now)?),
            };
            let attributes = segment.attribute_file().map(str::to_string);
            content.segments.push(SegmentEntry { file, items: segment.len(), deleted, attributes });
        }
        let distilled =
            |snapshot: &Snapshot| snapshot.similarity.clone().filter(|similarity| similarity.distilled.is_some());
        if let Some(now) = distilled(new)
            && distilled(old).is_none_or(|before| !Arc::ptr_eq(&before, &now))
        {
            content.distilled = now
                .distilled
                .as_ref()
                .map(|distilled| model_file::write_distilled(&transaction, distilled))
                .transpose()?;
        }
        let needed: BTreeSet<&String> = content.files().collect();
        let unneeded: Vec<String> = self.content.files().filter(|file| !needed.contains(file)).cloned().collect();
        unneeded.iter().try_for_each(|file| transaction.remove(file))?;
        let value = content.to_value(self.path())?;
        self.store = transaction.commit(value)?;
        self.content = content;
        Ok(())
    }

    /// The version that `store` has open, if it is another one of the same index.
    pub fn newer(&self, store: Store) -> Result<Option<Folder>> {
        if store.is_same(&self.store) {
            return Ok(None);
        }
        let newer = Folder::new(store, self.options)?;
        if !newer.content.is_version_of(&self.content) {
            let what = "another index has taken its place";
            return Err(crate::Error::index(self.path(), what, "open it anew"));
        }
        Ok(Some(newer))
    }

    pub(super) fn content(&self) -> &Content {
        &self.content
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Whether the distilled gate, if any, is that of `other`.
    pub fn has_distilled_of(&self, other: &Folder) -> bool {
        match (&self.content.distilled, &other.content.distilled) {
            (None, None) => true,
            (Some(ours), Some(theirs)) => ours == theirs && self.has_same(other, ours),
            _ => false,
        }
    }

    fn deletions_of(&self, file: &str) -> Option<&String> {
        self.content.segments.iter().find(|entry| entry.file == file)?.deleted.as_ref()
    }

    /// Whether `file` is the same in `other`, another version of the folder.
    fn has_same(&self, other: &Folder, file: &str) -> bool {
        match (self.store.shard(file), other.store.shard(file)) {
            (Ok(ours), Ok(theirs)) => ours.is_same(theirs),
            _ => false,
        }
    }
}

/// The attributes of a segment of `items` items in their file.
fn of_attributes(blueprint: &Blueprint, items: usize, file: &Shard) -> Result<SegmentAttributes> {
    SegmentAttributes::stored(blueprint.columns.clone(), blueprint.has_string_ids, items, file)
}
