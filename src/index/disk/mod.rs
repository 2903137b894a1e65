//! An index in a folder: what the files of `src/store/` mean. See `docs/INDEX_FORMAT.md`.

mod content;
mod deletions;
mod folder;
mod info;
mod model_file;
mod segment_file;
mod tensors;
mod verify;

pub(super) use folder::Folder;
pub use info::{IndexInfo, SegmentInfo};
pub use model_file::IndexModel;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::build::{Blueprint, least_used, with_directions};
use super::source::Runs;
use super::{IndexOptions, ItemIndex, ItemSource, OpenOptions, RowIds, Segment, Snapshot, unique};
use crate::backend::{Backend, Similarity};
use crate::error::Parameter;
use crate::model::Model;
use crate::store::{Report, Store, Transaction};
use crate::{Error, Result};
use content::{Content, SegmentEntry};

impl ItemIndex {
    /// Builds an index in a new folder and opens it. At most [`IndexOptions::segment_items`] items are in memory at a time.
    ///
    /// # Errors
    /// If the folder has an index already or cannot be written, or as [`ItemIndex::build`]. What has been written so far is
    /// removed then.
    pub fn create(
        folder: impl AsRef<Path>,
        backends: &[Arc<dyn Backend>],
        model: IndexModel,
        options: IndexOptions,
        source: ItemSource,
    ) -> Result<ItemIndex> {
        if source.is_empty() || backends.is_empty() {
            return Err(Error::argument(Parameter::Index, "at least one item and one device", "none"));
        }
        let device_memory = options.device_memory;
        let transaction = begin(folder.as_ref())?;
        let n_items = source.len();
        let per_segment = n_items.div_ceil(backends.len()).min(options.segment_items.max(1));
        let range = Arc::new(model.range());
        let has_string_ids = source.has_string_ids();
        let mut runs = Runs::new(source, &range)?;
        let similarity = with_directions(backends[0].as_ref(), model.similarity.clone(), &mut runs, per_segment)?;
        let columns = runs.columns().into();
        let blueprint = Blueprint::new(options, similarity, range.clone(), n_items)?;
        let blueprint = Blueprint { has_string_ids, columns, ..blueprint };
        let mut content = Content::new(&blueprint);
        content.segments = write_segments(&transaction, &blueprint, backends, runs, per_segment)?;
        write_model(&transaction, &mut content, &model, blueprint.similarity.as_deref())?;
        let store = transaction.commit(content.to_value(folder.as_ref())?)?;
        ItemIndex::of_folder(Folder::new(store, OpenOptions { check: false, device_memory })?, backends)
    }

    /// Writes the present version into a new folder: items, similarity, what was learned from queries, and the encoder if the
    /// index was opened from a folder that has one. This index stays where it is; [`ItemIndex::open`] opens the new one.
    ///
    /// # Errors
    /// If the folder has an index already or cannot be written, or what is stored of this one is damaged. What has been written so
    /// far is removed then.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        let own = self.lock();
        let snapshot = self.snapshot();
        snapshot.check_files()?;
        let similarity = snapshot.similarity();
        let model = match &*own {
            Some(own) => own.index_model(similarity)?,
            None => match similarity {
                Some(similarity) => IndexModel::similarity(similarity.clone()),
                None if self.has_token_embeddings() => IndexModel::late_interaction(self.dim()),
                None => IndexModel::dot(self.dim()),
            },
        };
        let transaction = begin(folder.as_ref())?;
        let mut content = Content::new(&self.blueprint);
        for segment in snapshot.segments() {
            if let Some(own) = &*own {
                own.check(segment)?;
            }
            let file = segment_file::write(&transaction, (segment.ids(), segment.strings()), segment.tables())?;
            let attributes = segment_file::write_attributes(&transaction, segment.attributes())?;
            let deleted = segment.deleted().map(|deleted| deletions::write(&transaction, deleted)).transpose()?;
            content.segments.push(SegmentEntry { file, items: segment.len(), deleted, attributes });
        }
        write_model(&transaction, &mut content, &model, similarity)?;
        transaction.commit(content.to_value(folder.as_ref())?).map(|_| ())
    }

    /// Opens the latest version of an index folder. Changes of the index are changes of the folder then; those that other
    /// processes make show after [`ItemIndex::refresh`].
    ///
    /// # Errors
    /// [`Error::Index`] if there is none, or a file is missing, damaged, or not what this program writes; or a device fails.
    pub fn open(folder: impl AsRef<Path>, backends: &[Arc<dyn Backend>], options: OpenOptions) -> Result<ItemIndex> {
        if backends.is_empty() {
            return Err(Error::argument(Parameter::Index, "at least one device", "none"));
        }
        ItemIndex::of_folder(Folder::new(Store::open(folder)?, options)?, backends)
    }

    fn of_folder(folder: Folder, backends: &[Arc<dyn Backend>]) -> Result<ItemIndex> {
        let blueprint = folder.blueprint()?;
        let segments = folder.segments(&blueprint, backends, None)?;
        ItemIndex::of_segments(blueprint, backends, folder.generation(), segments, Some(folder))
    }

    /// Goes to the latest version of the folder. Returns whether it is another one; always false for an index in memory.
    ///
    /// # Errors
    /// As [`ItemIndex::open`], or if another index has taken its place; the present version stays then.
    pub fn refresh(&self) -> Result<bool> {
        let mut folder = self.lock();
        let Some(folder) = folder.as_mut() else { return Ok(false) };
        let latest = Store::open(folder.path())?;
        self.follow(folder, latest)
    }

    /// Goes to the version that `store` has open.
    pub(super) fn follow(&self, folder: &mut Folder, store: Store) -> Result<bool> {
        let Some(newer) = folder.newer(store)? else { return Ok(false) };
        let old: Arc<Snapshot> = self.snapshot();
        let segments = newer.segments(&self.blueprint, &self.backends(), Some((folder, &old)))?;
        let similarity = match newer.has_distilled_of(folder) {
            true => old.similarity.clone(),
            false => newer.blueprint()?.similarity,
        };
        self.show(self.blueprint.snapshot(newer.generation(), segments, similarity)?);
        *folder = newer;
        Ok(true)
    }

    /// The folder, if the index is stored in one.
    pub fn folder(&self) -> Option<PathBuf> {
        self.lock().as_ref().map(|folder| folder.path().to_path_buf())
    }

    /// Whether its folder holds the encoder of a whole model.
    pub fn has_encoder(&self) -> bool {
        self.lock().as_ref().is_some_and(Folder::has_encoder)
    }

    /// The model that the index was built for, read from its folder; `None` if it is in memory or has no encoder.
    ///
    /// # Errors
    /// [`Error::Index`] if its file is damaged.
    pub fn model(&self) -> Result<Option<Model>> {
        self.lock().as_ref().map_or(Ok(None), Folder::model)
    }

    /// What the model that the index was built for calls the items 1, 2, ... of its table, read from its folder; `None` if it has no
    /// names for them. An empty name stands for none.
    ///
    /// # Errors
    /// [`Error::Index`] if they are damaged.
    pub fn item_names(&self) -> Result<Option<Vec<String>>> {
        self.lock().as_ref().map_or(Ok(None), Folder::item_names)
    }

    /// The ids of the rows of the model's item table, which histories name.
    ///
    /// # Errors
    /// If ids are strings, and the model has no names for its rows; or as [`ItemIndex::item_names`].
    pub fn row_ids(&self) -> Result<RowIds> {
        if !self.has_string_ids() {
            return Ok(RowIds::default());
        }
        let names = self.item_names()?.ok_or_else(|| {
            let expected = "rows of the model's item table, or the names that its model has for them";
            Error::argument(Parameter::ItemIds, expected, "string ids, of a model without names of items")
        })?;
        Ok(RowIds::of_names(&names))
    }

    /// The sizes of an index folder, from its manifest alone.
    ///
    /// # Errors
    /// [`Error::Index`] if there is no index, or it is damaged.
    pub fn info(folder: impl AsRef<Path>) -> Result<IndexInfo> {
        IndexInfo::new(&Folder::new(Store::open(folder)?, OpenOptions::default())?)
    }

    /// Reads every byte of the latest version of a folder: checksums first, then, if they are right, whether the content makes
    /// sense. The report lists every damaged file.
    ///
    /// # Errors
    /// [`Error::Index`] if the manifest itself is missing, damaged, or of an unknown version.
    pub fn verify(folder: impl AsRef<Path>) -> Result<Report> {
        verify::verify(folder.as_ref())
    }
}

/// The first version of `folder`, which may have been begun before.
fn begin(folder: &Path) -> Result<Transaction> {
    let store = match Store::open(folder) {
        Ok(store) if store.content().is_null() => store,
        _ => Store::create(folder)?,
    };
    let transaction = store.write()?;
    match transaction.base().content().is_null() {
        true => Ok(transaction),
        false => Err(Error::index(folder, "there is an index already", "open that one, or choose another folder")),
    }
}

/// Writes the files of the model, and of what was found out about its items and queries.
fn write_model(
    transaction: &Transaction,
    content: &mut Content,
    model: &IndexModel,
    similarity: Option<&Similarity>,
) -> Result<()> {
    let principal = similarity.and_then(|similarity| similarity.mol.principal.as_ref());
    content.principal = principal.map(|layer| model_file::write_principal(transaction, layer)).transpose()?;
    content.model = model.write(transaction)?;
    let distilled = similarity.and_then(|similarity| similarity.distilled.as_ref());
    content.distilled = distilled.map(|distilled| model_file::write_distilled(transaction, distilled)).transpose()?;
    Ok(())
}

/// Writes all items, a segment at a time.
fn write_segments(
    transaction: &Transaction,
    blueprint: &Blueprint,
    backends: &[Arc<dyn Backend>],
    mut runs: Runs,
    per_segment: usize,
) -> Result<Vec<SegmentEntry>> {
    let (mut entries, mut written) = (Vec::new(), Vec::<Segment>::new());
    while let Some(segment) = blueprint.segment(least_used(backends, &written), &mut runs, per_segment)? {
        let file = segment_file::write(transaction, (segment.ids(), segment.strings()), segment.tables())?;
        // From here on its ids are mapped, and its tables out of memory.
        let (ids, tables) =
            segment_file::read(&transaction.shard(&file)?, segment.len(), blueprint.empty_tables()?, false)?;
        written.push(blueprint.place(ids, Arc::new(tables), segment.backend()));
        let attributes = segment_file::write_attributes(transaction, segment.attributes())?;
        entries.push(SegmentEntry { file, items: segment.len(), deleted: None, attributes });
    }
    runs.check_attributes()?;
    unique::check(written.iter())?;
    Ok(entries)
}
