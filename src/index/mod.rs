//! The item index: which items can be found, their tables, and how both change.
//!
//! An index is a list of immutable [`Segment`]s and of deletions. Every change makes a new [`Snapshot`]; a search works on
//! the one it began with. Adding is writing a small segment, updating is deleting and adding, and small segments are
//! merged as they accumulate, so a change costs time in proportion to what it changes.

mod attribute_source;
mod build;
mod change;
mod conditions;
mod cost;
mod disk;
mod enlarged;
mod excluded;
mod filter;
mod lists;
mod model_items;
mod options;
mod retrieve;
mod row_ids;
mod scans;
mod segment;
mod segment_attributes;
mod snapshot;
mod source;
mod string_ids;
mod unique;

pub use build::item_tables;
pub use disk::{IndexInfo, IndexModel, SegmentInfo};
pub use excluded::Excluded;
pub(crate) use excluded::Matching;
pub use filter::Filter;
pub use options::{IndexOptions, ListOptions, OpenOptions};
pub use row_ids::RowIds;
pub use segment::Segment;
pub use snapshot::Snapshot;
pub use source::{ItemSource, Items};
pub use string_ids::{StringIds, id_of_string};

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::attributes::{Column, Condition};
use crate::backend::{Backend, DeviceKind, QueryBatch, Similarity, mol_queries};
use crate::context::Cancel;
use crate::error::Parameter;
use crate::learn::{self, Learning};
use crate::model::{InputRange, Model, Mol};
use crate::tables::Dtype;
use crate::tensor::Tensor;
use crate::token_embeddings::TokenEmbeddings;
use crate::{Error, Result};
use build::{Blueprint, least_used, with_directions};
use change::Change;
use disk::Folder;
use model_items::item_embeddings;
use source::Runs;

/// Items with their tables on one or more devices; in memory only, or stored in a folder.
///
/// [`Searcher::builder`](crate::Searcher::builder) makes the index of most programs, and [`Searcher::index`](crate::Searcher::index)
/// hands it out. All methods take `&self`: items come and go while other threads search.
pub struct ItemIndex {
    blueprint: Blueprint,
    /// Changed by whoever holds the folder.
    backends: RwLock<Vec<Arc<dyn Backend>>>,
    current: RwLock<Arc<Snapshot>>,
    /// Where the index is stored, if it is. Held by whoever makes the next snapshot.
    folder: Mutex<Option<Folder>>,
}

impl ItemIndex {
    /// Indexes rows `ids` of the model's own item table.
    ///
    /// # Errors
    /// If an id is beyond the table or given twice, or the device fails.
    pub fn from_model(
        backend: &dyn Backend,
        model: &Model,
        ids: &[u32],
        options: impl Into<IndexOptions>,
    ) -> Result<ItemIndex> {
        let embeddings = item_embeddings(model, ids)?;
        let ids: Vec<u64> = ids.iter().map(|&id| id.into()).collect();
        ItemIndex::from_embeddings(backend, &ids, &embeddings, model.mol.as_ref(), options)
    }

    /// Indexes items `ids` with their raw embeddings (N, D), in any order.
    ///
    /// # Errors
    /// If there is no item, an id is given twice, a value is not finite or so large that scores overflow, the widths of
    /// `mol` and `embeddings` differ, or the device fails.
    pub fn from_embeddings(
        backend: &dyn Backend,
        ids: &[u64],
        embeddings: &Tensor,
        mol: Option<&Mol<Tensor>>,
        options: impl Into<IndexOptions>,
    ) -> Result<ItemIndex> {
        let similarity = mol.map(|mol| Similarity { mol: mol.clone(), distilled: None });
        ItemIndex::build(&[backend.share()], ids, embeddings, similarity, options.into())
    }

    /// Indexes items on several devices, each of which gets as many; results do not depend on how many there are.
    ///
    /// # Errors
    /// As [`ItemIndex::from_embeddings`], or if there is no device.
    pub fn build(
        backends: &[Arc<dyn Backend>],
        ids: &[u64],
        embeddings: &Tensor,
        similarity: Option<Similarity>,
        options: IndexOptions,
    ) -> Result<ItemIndex> {
        // Rows that are in order already are not copied.
        let source = match ids.is_sorted() && embeddings.shape().len() > 1 {
            true => ItemSource::of_embeddings(ids.to_vec(), embeddings.clone()),
            false => {
                let read = |rows: &[usize]| Ok(embeddings.select_rows(rows));
                ItemSource::of_rows(ids, [embeddings.rows(), embeddings.width()], read)?
            }
        };
        ItemIndex::from_source(backends, similarity, options, source)
    }

    /// Indexes the items of a source, in memory; [`ItemIndex::create`] keeps them in a folder. Beside the tables there is only
    /// a chunk of them in memory at a time, unless the similarity is one for which directions are learned from the items.
    ///
    /// # Errors
    /// As [`ItemIndex::build`], or those of the source.
    pub fn from_source(
        backends: &[Arc<dyn Backend>],
        similarity: Option<Similarity>,
        options: IndexOptions,
        mut source: ItemSource,
    ) -> Result<ItemIndex> {
        let n_items = source.len();
        if n_items == 0 || backends.is_empty() {
            return Err(Error::argument(Parameter::Index, "at least one item and one device", "none"));
        }
        let mol = similarity.as_ref().map(|similarity| &similarity.mol);
        let dim = mol.map_or_else(|| source.dim(), |mol| Ok(mol.item_dim()))?;
        let range = Arc::new(match source.has_token_embeddings()? {
            true if mol.is_some() => {
                let expected = "one embedding per item, for Mixture-of-Logits";
                return Err(Error::argument(Parameter::TokenEmbeddings, expected, "several"));
            }
            true => InputRange::of_tokens(dim),
            false => InputRange::new(mol, dim),
        });
        let has_string_ids = source.has_string_ids();
        let mut runs = Runs::new(source, &range)?;
        let similarity = with_directions(backends[0].as_ref(), similarity, &mut runs, n_items)?;
        let columns = runs.columns().into();
        let blueprint = Blueprint::new(options, similarity, range.clone(), n_items)?;
        let blueprint = Blueprint { has_string_ids, columns, ..blueprint };
        let per_device = n_items.div_ceil(backends.len());
        let per_segment = per_device.min(blueprint.options.segment_items.max(1));
        let mut segments = Vec::new();
        for (device, backend) in backends.iter().enumerate() {
            let (from, to) = (device * per_device, n_items.min((device + 1) * per_device));
            for from in (from..to).step_by(per_segment) {
                segments.extend(blueprint.segment(backend, &mut runs, per_segment.min(to - from))?);
            }
        }
        let found = segments.iter().map(Segment::len).sum::<usize>();
        if found < n_items || !runs.is_empty()? {
            let found = if found < n_items { format!("{found}") } else { "more".to_string() };
            return Err(Error::argument(Parameter::ItemIds, format!("{n_items}, as the source says"), found));
        }
        runs.check_attributes()?;
        unique::check(segments.iter())?;
        ItemIndex::of_segments(blueprint, backends, 0, segments, None)
    }

    fn of_segments(
        blueprint: Blueprint,
        backends: &[Arc<dyn Backend>],
        version: u64,
        segments: Vec<Segment>,
        folder: Option<Folder>,
    ) -> Result<ItemIndex> {
        let current = RwLock::new(Arc::new(blueprint.snapshot(version, segments, blueprint.similarity.clone())?));
        let backends = RwLock::new(backends.to_vec());
        Ok(ItemIndex { blueprint, backends, current, folder: Mutex::new(folder) })
    }

    /// The present version. It stays as it is while the index changes.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Number of items that can be found.
    pub fn len(&self) -> usize {
        self.snapshot().len()
    }

    /// Whether no item can be found.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ids that can be found, ascending.
    pub fn ids(&self) -> Vec<u64> {
        self.snapshot().ids()
    }

    /// Whether `id` can be found.
    pub fn contains(&self, id: u64) -> bool {
        self.snapshot().contains(id)
    }

    /// Whether items have token embeddings, which late interaction scores.
    pub fn has_token_embeddings(&self) -> bool {
        self.blueprint.range.is_of_tokens()
    }

    /// D: width of raw item embeddings, or of token embeddings.
    pub fn dim(&self) -> usize {
        self.blueprint.dim
    }

    /// D: width of query embeddings; another one than [`ItemIndex::dim`] only where components are given.
    pub fn query_dim(&self) -> usize {
        self.blueprint.range.query_dim()
    }

    /// Whether ids of items are strings. Where methods take numbers, these are [`id_of_string`] of them.
    pub fn has_string_ids(&self) -> bool {
        self.blueprint.has_string_ids
    }

    /// String ids that can be found, in no order; none if ids are numbers.
    pub fn string_ids(&self) -> Vec<String> {
        self.snapshot().string_ids()
    }

    /// Ids of the items whose attributes meet `condition`, ascending.
    ///
    /// # Errors
    /// If items have no attributes, the condition is no SQL expression over them or takes too long, or what is stored is damaged.
    pub fn matching_ids(&self, condition: &Condition) -> Result<Vec<u64>> {
        self.snapshot().matching_ids(condition)
    }

    /// Names and types of the attributes of items, for conditions of searches; none if items have none.
    pub fn columns(&self) -> &[Column] {
        &self.blueprint.columns
    }

    /// Number format of the tables.
    pub fn dtype(&self) -> Dtype {
        self.blueprint.options.dtype
    }

    /// Bytes that the tables take on the devices.
    pub fn bytes(&self) -> u64 {
        self.snapshot().bytes()
    }

    /// Adds items with their raw embeddings (n, D), replacing those that are there. Searches that begin afterwards find
    /// them. An index of a folder has them on the disk then.
    ///
    /// # Errors
    /// If an id is given twice, a value is not finite or so large that scores overflow, the width is another one, the device
    /// fails, or the folder cannot be written; nothing has changed then.
    pub fn add(&self, ids: &[u64], embeddings: &Tensor) -> Result<()> {
        self.add_items(Items::new(ids.to_vec(), embeddings.clone()))
    }

    /// [`ItemIndex::add`] for an index of token embeddings.
    ///
    /// # Errors
    /// As there, or if the items of the index have no token embeddings.
    pub fn add_token_embeddings(&self, ids: &[u64], token_embeddings: &TokenEmbeddings) -> Result<()> {
        self.add_items(Items::of_tokens(ids.to_vec(), token_embeddings.clone()))
    }

    fn add_items(&self, items: Items) -> Result<()> {
        items.check(&self.blueprint.range)?;
        self.add_all(ItemSource::new(items.ids.len(), std::iter::once(Ok(items))))
    }

    /// [`ItemIndex::add`] for an index whose ids are strings.
    ///
    /// # Errors
    /// As there, if ids are numbers, or an id has the number of another string ([`id_of_string`]).
    pub fn add_strings(&self, ids: &[String], embeddings: &Tensor) -> Result<()> {
        let numbers = vec![0; ids.len()];
        self.add_all(ItemSource::of_embeddings(numbers, embeddings.clone()).with_string_ids(ids.to_vec())?)
    }

    /// [`ItemIndex::remove`] for an index whose ids are strings.
    ///
    /// # Errors
    /// As there.
    pub fn remove_strings<S: AsRef<str>>(&self, ids: &[S]) -> Result<usize> {
        self.remove_from(|latest| ids.iter().filter_map(|id| latest.id_of(id.as_ref())).collect())
    }

    /// Adds all items of a source in one step: [`ItemIndex::add`] for more of them than fit into memory, or with attributes. Items
    /// without have none afterwards, also those that they replace.
    ///
    /// # Errors
    /// As [`ItemIndex::add`], those of the source, or if attributes are none of [`ItemIndex::columns`] or of other items.
    pub fn add_all(&self, source: ItemSource) -> Result<()> {
        if source.has_string_ids() != self.has_string_ids() {
            let words = |strings| if strings { "strings" } else { "numbers" };
            let expected = format!("{}, as those of the index", words(self.has_string_ids()));
            return Err(Error::argument(Parameter::ItemIds, expected, words(source.has_string_ids())));
        }
        let change = Change::begin(self)?;
        let mut segments = change.old.segments().to_vec();
        let mut full: Vec<Segment> = Vec::new();
        let mut added: Option<Segment> = None;
        let (mut runs, backends) = (Runs::new(source, &self.blueprint.range)?, self.backends());
        if self.blueprint.columns.is_empty() && !runs.columns().is_empty() {
            let expected = "none, as the index was built without";
            return Err(Error::argument(Parameter::Attributes, expected, Column::list(runs.columns())));
        }
        while !runs.is_empty()? {
            if let Some(complete) = added.take() {
                full.push(change.stored(complete)?);
            }
            let placed: Vec<Segment> = segments.iter().chain(&full).cloned().collect();
            let backend = least_used(&backends, &placed);
            added = self.blueprint.segment(backend, &mut runs, self.blueprint.options.segment_items.max(1))?;
            let ids = added.as_ref().map_or(&[][..], Segment::ids);
            if let Some(strings) = added.as_ref().and_then(Segment::strings) {
                let others = |(position, &id)| {
                    let other = change.old.string_id(id).filter(|other| *other != strings.get(position))?;
                    Some(string_ids::same_number(other, strings.get(position)))
                };
                ids.iter().enumerate().find_map(others).map_or(Ok(()), Err)?;
            }
            for segment in &mut segments {
                *segment = segment.without(ids).unwrap_or_else(|| segment.clone());
            }
        }
        runs.check_attributes()?;
        let Some(mut added) = added else { return Ok(()) };
        unique::check(full.iter().chain([&added]))?;
        // Small segments merge as in a binary counter: the work for each item is logarithmic.
        while let Some(last) = segments.last()
            && last.n_live() <= added.n_live()
            && last.n_live() + added.n_live() <= self.blueprint.options.segment_items
        {
            added = change.merge(&[last.clone(), added])?;
            segments.pop();
        }
        change.commit(full.into_iter().chain(segments).chain([added]).collect())
    }

    /// Removes items; ids that are not there are passed over. Returns how many were.
    ///
    /// # Errors
    /// If the device fails, or the folder cannot be written; nothing has changed then.
    pub fn remove(&self, ids: &[u64]) -> Result<usize> {
        self.remove_from(|_| ids.to_vec())
    }

    /// Removes what `ids` names in the latest version.
    fn remove_from(&self, ids: impl FnOnce(&Snapshot) -> Vec<u64>) -> Result<usize> {
        let change = Change::begin(self)?;
        let ids = &ids(&change.old);
        let segments = change.old.segments().iter();
        let segments: Vec<Segment> =
            segments.map(|segment| segment.without(ids).unwrap_or_else(|| segment.clone())).collect();
        let n = change.old.len() - segments.iter().map(Segment::n_live).sum::<usize>();
        if n > 0 {
            change.commit(segments)?;
        }
        Ok(n)
    }

    /// Learns from `queries`, which should be like those that will be asked; a few hundred are enough: a gate that is cheaper
    /// than the model's, for [`Algorithm::Distilled`](crate::search::Algorithm::Distilled) and
    /// [`Algorithm::Cascade`](crate::search::Algorithm::Cascade), and tangents that need no sample, for
    /// [`Algorithm::Tangent`](crate::search::Algorithm::Tangent). An index of a folder keeps them there.
    ///
    /// # Errors
    /// If the index has no Mixture-of-Logits similarity, there is no query, one is so large that scores overflow, shapes do not
    /// fit, or the folder cannot be written; nothing has changed then.
    pub fn distill(&self, queries: &QueryBatch) -> Result<()> {
        self.distill_with(queries, &Cancel::new(), &|_| ())
    }

    /// [`ItemIndex::distill`] that `cancel` ends, and that tells `progress` which share is done, from 0 to 1.
    ///
    /// # Errors
    /// As there, or [`Error::Cancelled`].
    pub fn distill_with(&self, queries: &QueryBatch, cancel: &Cancel, progress: &dyn Fn(f32)) -> Result<()> {
        let learning = Learning::new(cancel, progress);
        let mut change = Change::begin(self)?;
        let old = change.old.clone();
        old.check_queries(queries)?;
        let (Some(similarity), Some(sample)) = (old.similarity(), old.sample()?) else {
            return Err(Error::argument(Parameter::Index, "an index with Mixture-of-Logits", "one without"));
        };
        mol_queries(self.blueprint.dim, Some(&similarity.mol.config), queries)?;
        let distilled = Some(learn::distill(&similarity.mol, sample, queries, &learning)?);
        change.similarity = Some(Arc::new(Similarity { mol: similarity.mol.clone(), distilled }));
        change.commit(old.segments().to_vec())
    }

    /// Rewrites all segments without the deleted items, as large as they may be.
    ///
    /// # Errors
    /// If the device fails, or the folder cannot be written; nothing has changed then.
    pub fn compact(&self) -> Result<()> {
        let change = Change::begin(self)?;
        let per_segment = self.blueprint.options.segment_items.max(1);
        let mut compacted: Vec<Segment> = Vec::new();
        for backend in self.backends() {
            let of_device = change.old.segments().iter().filter(|segment| Arc::ptr_eq(segment.backend(), &backend));
            let mut group: Vec<Segment> = Vec::new();
            for segment in of_device {
                if group.iter().map(Segment::n_live).sum::<usize>() + segment.n_live() > per_segment {
                    compacted.extend(change.rewritten(&group)?);
                    group.clear();
                }
                group.push(segment.clone());
            }
            compacted.extend(change.rewritten(&group)?);
        }
        change.commit(compacted)
    }

    /// Moves all segments to other devices, evenly: to a new one in place of one that was lost, say. Their tables are on the
    /// host, so nothing is computed again, and the old devices are not asked. Results stay the same but for rounding; the
    /// version too. Encoders are made for a device and do not move.
    ///
    /// # Errors
    /// If there is no device, one has no room or fails, or a stored table that a device copies is damaged; nothing has
    /// changed then.
    pub fn move_to(&self, backends: &[Arc<dyn Backend>]) -> Result<()> {
        if backends.is_empty() {
            return Err(Error::argument(Parameter::Index, "at least one device", "none"));
        }
        let folder = self.lock();
        let old = self.snapshot();
        let mut moved: Vec<Segment> = Vec::new();
        for segment in old.segments() {
            let backend = least_used(backends, &moved);
            if let (Some(folder), false) = (&*folder, backend.info().kind == DeviceKind::Cpu) {
                folder.check(segment)?;
            }
            moved.push(segment.on(backend));
        }
        let snapshot = self.blueprint.snapshot(old.version(), moved, old.similarity.clone())?;
        *self.backends.write().unwrap_or_else(PoisonError::into_inner) = backends.to_vec();
        self.show(snapshot);
        Ok(())
    }

    /// The devices that the items are on.
    pub fn backends(&self) -> Vec<Arc<dyn Backend>> {
        self.backends.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn show(&self, snapshot: Snapshot) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Folder>> {
        self.folder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
