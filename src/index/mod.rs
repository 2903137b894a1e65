//! The item index: which items can be found, their tables, and how both change.
//!
//! An index is a list of immutable [`Segment`]s and of deletions. Every change makes a new [`Snapshot`]; a search works on
//! the one it began with. Adding is writing a small segment, updating is deleting and adding, and small segments are
//! merged as they accumulate, so a change costs time in proportion to what it changes.

mod build;
mod distil;
mod filter;
mod lists;
mod options;
mod sample;
mod segment;
mod snapshot;

pub use filter::Filter;
pub use options::{IndexOptions, ListOptions};
pub use sample::Sample;
pub use segment::Segment;
pub use snapshot::{Excluded, Snapshot};

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::backend::{Backend, QueryBatch, Similarity};
use crate::model::{Model, Mol};
use crate::tables::{Bytes, Dtype, Tables};
use crate::tensor::Tensor;
use crate::{Error, Result};
use build::Blueprint;

/// Items with their tables on one or more devices.
pub struct ItemIndex {
    blueprint: Blueprint,
    backends: Vec<Arc<dyn Backend>>,
    current: RwLock<Arc<Snapshot>>,
    /// Held by whoever makes the next snapshot.
    writer: Mutex<()>,
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
    /// If there is no item, an id is given twice, a value is not finite, the widths of `mol` and `embeddings` differ,
    /// or the device fails.
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
        let mol = similarity.as_ref().map(|similarity| &similarity.mol);
        let dim = mol.map_or(embeddings.width(), Mol::item_dim);
        check_items(ids, embeddings, dim)?;
        if ids.is_empty() || backends.is_empty() {
            return Err(Error::argument("index", "at least one item and one device", "none"));
        }
        let blueprint = Blueprint::new(options, similarity.map(Arc::new), dim, ids.len())?;
        let (ids, rows) = sorted(ids, embeddings);
        let per_device = ids.len().div_ceil(backends.len());
        let per_segment = per_device.min(blueprint.options.segment_items.max(1));
        let mut segments = Vec::new();
        for (device, backend) in backends.iter().enumerate() {
            let (from, to) = (device * per_device, ids.len().min((device + 1) * per_device));
            for from in (from..to).step_by(per_segment) {
                let to = to.min(from + per_segment);
                segments.push(blueprint.segment(
                    backend,
                    ids[from..to].to_vec(),
                    rows[from * dim..to * dim].to_vec(),
                )?);
            }
        }
        let index = ItemIndex::of_segments(blueprint, backends.to_vec(), 0, segments)?;
        index.snapshot().segments().iter().try_for_each(Segment::load)?;
        Ok(index)
    }

    fn of_segments(
        blueprint: Blueprint,
        backends: Vec<Arc<dyn Backend>>,
        version: u64,
        segments: Vec<Segment>,
    ) -> Result<ItemIndex> {
        let segments = within_memory(&blueprint, segments);
        let snapshot = Snapshot::new(version, segments, blueprint.similarity.clone(), blueprint.options.dtype)?;
        Ok(ItemIndex { blueprint, backends, current: RwLock::new(Arc::new(snapshot)), writer: Mutex::new(()) })
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

    /// Number format of the tables.
    pub fn dtype(&self) -> Dtype {
        self.blueprint.options.dtype
    }

    /// Bytes that the tables take on the devices.
    pub fn bytes(&self) -> u64 {
        self.snapshot().bytes()
    }

    /// Adds items with their raw embeddings (n, D), replacing those that are there. Searches that begin afterwards find
    /// them.
    ///
    /// # Errors
    /// If an id is given twice, a value is not finite or the width is another one, or the device fails; nothing has changed
    /// then.
    pub fn add(&self, ids: &[u64], embeddings: &Tensor) -> Result<()> {
        check_items(ids, embeddings, self.blueprint.dim)?;
        if ids.is_empty() {
            return Ok(());
        }
        let _writer = self.lock();
        let old = self.snapshot();
        let (ids, rows) = sorted(ids, embeddings);
        let replaced = |id: u64| ids.binary_search(&id).is_ok();
        let mut segments: Vec<Segment> =
            old.segments().iter().map(|segment| segment.without(replaced).unwrap_or_else(|| segment.clone())).collect();
        let mut added = self.blueprint.segment(self.least_used(&segments), ids.clone(), rows)?;
        if let Some(similarity) = &old.similarity {
            added = added.with_similarity(similarity.clone());
        }
        // Small segments merge as in a binary counter: the work for each item is logarithmic.
        while let Some(last) = segments.last()
            && last.n_live() <= added.n_live()
            && last.n_live() + added.n_live() <= self.blueprint.options.segment_items
        {
            added = self.merge(&[last.clone(), added])?;
            segments.pop();
        }
        added.load()?;
        segments.push(added);
        self.replace(&old, old.similarity.clone(), segments)
    }

    /// Removes items; ids that are not there are passed over. Returns how many were.
    ///
    /// # Errors
    /// If the device fails; nothing has changed then.
    pub fn remove(&self, ids: &[u64]) -> Result<usize> {
        let _writer = self.lock();
        let old = self.snapshot();
        let gone: HashSet<u64> = ids.iter().copied().collect();
        let segments: Vec<Segment> = old
            .segments()
            .iter()
            .map(|segment| segment.without(|id| gone.contains(&id)).unwrap_or_else(|| segment.clone()))
            .collect();
        let n = old.len() - segments.iter().map(Segment::n_live).sum::<usize>();
        if n > 0 {
            self.replace(
                &old,
                old.similarity.clone(),
                segments.into_iter().filter(|segment| segment.n_live() > 0).collect(),
            )?;
        }
        Ok(n)
    }

    /// Fits a distilled gate to the model's, for [`Algorithm::Distilled`](crate::search::Algorithm::Distilled) and
    /// [`Algorithm::Cascade`](crate::search::Algorithm::Cascade). `queries` should be like those that will be asked; a few
    /// hundred are enough.
    ///
    /// # Errors
    /// If the index has no Mixture-of-Logits similarity, there is no query, or shapes do not fit.
    pub fn distill(&self, queries: &QueryBatch) -> Result<()> {
        let _writer = self.lock();
        let old = self.snapshot();
        let (Some(similarity), Some(sample)) = (old.similarity(), old.sample()) else {
            return Err(Error::argument("distilled gate", "an index with Mixture-of-Logits", "one without"));
        };
        let distilled = Some(distil::fit(&similarity.mol, sample, queries)?);
        let similarity = Arc::new(Similarity { mol: similarity.mol.clone(), distilled });
        let segments = old.segments().iter().map(|segment| segment.with_similarity(similarity.clone())).collect();
        self.replace(&old, Some(similarity), segments)
    }

    /// Rewrites all segments without the deleted items, as large as they may be.
    ///
    /// # Errors
    /// If the device fails; nothing has changed then.
    pub fn compact(&self) -> Result<()> {
        let _writer = self.lock();
        let old = self.snapshot();
        let per_segment = self.blueprint.options.segment_items.max(1);
        let mut compacted: Vec<Segment> = Vec::new();
        for backend in &self.backends {
            let of_device = old.segments().iter().filter(|segment| Arc::ptr_eq(segment.backend(), backend));
            let mut group: Vec<Segment> = Vec::new();
            for segment in of_device {
                if group.iter().map(Segment::n_live).sum::<usize>() + segment.n_live() > per_segment {
                    compacted.extend(self.rewritten(&group)?);
                    group.clear();
                }
                group.push(segment.clone());
            }
            compacted.extend(self.rewritten(&group)?);
        }
        compacted.iter().try_for_each(Segment::load)?;
        self.replace(&old, old.similarity.clone(), compacted)
    }

    /// One segment instead of several, unless it is one already and has no deletions.
    fn rewritten(&self, group: &[Segment]) -> Result<Option<Segment>> {
        Ok(match group {
            [] => None,
            [segment] if segment.deleted().is_none() => Some(segment.clone()),
            group => Some(self.merge(group)?).filter(|segment| segment.n_live() > 0),
        })
    }

    /// The live items of some segments of one device as one segment, ids ascending. Rows are copied as they are.
    fn merge(&self, group: &[Segment]) -> Result<Segment> {
        let mut rows: Vec<(u64, usize, usize)> = Vec::new();
        for (index, segment) in group.iter().enumerate() {
            let live = |position: &usize| !segment.deleted().is_some_and(|bits| bits.contains(*position as u32));
            rows.extend((0..segment.len()).filter(live).map(|position| (segment.ids()[position], index, position)));
        }
        rows.sort_unstable();
        let similarity = self.blueprint.similarity.as_ref().map(|similarity| &similarity.mol);
        let Blueprint { dim, form, options, .. } = &self.blueprint;
        let mut tables = Tables::new(*dim, similarity, options.dtype, *form)?;
        for (_, index, position) in &rows {
            tables.append_row_of(group[*index].tables(), *position);
        }
        let ids = Bytes::Owned(rows.iter().map(|(id, ..)| *id).collect());
        self.blueprint.cluster(group[0].backend().as_ref(), &mut tables)?;
        let merged = self.blueprint.place(ids, Arc::new(tables), group[0].backend(), false);
        Ok(match group[0].similarity() {
            Some(similarity) => merged.with_similarity(similarity.clone()),
            None => merged,
        })
    }

    /// The device with the fewest items.
    fn least_used(&self, segments: &[Segment]) -> &Arc<dyn Backend> {
        let mut used: HashMap<*const (), usize> = HashMap::new();
        for segment in segments {
            *used.entry(Arc::as_ptr(segment.backend()).cast()).or_default() += segment.n_live();
        }
        let items = |backend: &&Arc<dyn Backend>| used.get(&Arc::as_ptr(backend).cast()).copied().unwrap_or(0);
        self.backends.iter().min_by_key(items).unwrap_or(&self.backends[0])
    }

    fn replace(&self, old: &Snapshot, similarity: Option<Arc<Similarity>>, segments: Vec<Segment>) -> Result<()> {
        let segments = within_memory(&self.blueprint, segments);
        let snapshot = Snapshot::new(old.version() + 1, segments, similarity, self.dtype())?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Rows `ids` of the model's item table, as its similarity wants them.
fn item_embeddings(model: &Model, ids: &[u32]) -> Result<Tensor> {
    let embeddings = model.item_embeddings(ids)?;
    Ok(match model.config.item_l2_norm {
        true => l2_normalised(&embeddings, model.config.l2_norm_eps),
        false => embeddings,
    })
}

/// Lets segments pass through a device whose memory the ones before them have filled.
fn within_memory(blueprint: &Blueprint, segments: Vec<Segment>) -> Vec<Segment> {
    let Some(memory) = blueprint.options.device_memory else { return segments };
    let mut used: HashMap<*const (), u64> = HashMap::new();
    let place = |segment: Segment| {
        let used = used.entry(Arc::as_ptr(segment.backend()).cast()).or_default();
        *used += segment.tables().bytes();
        segment.streamed(*used > memory)
    };
    segments.into_iter().map(place).collect()
}

/// Ids without duplicates, one per row; rows of `dim` finite numbers.
fn check_items(ids: &[u64], embeddings: &Tensor, dim: usize) -> Result<()> {
    if embeddings.shape().len() != 2 || embeddings.width() != dim || dim == 0 {
        let found = format!("{:?}", embeddings.shape());
        return Err(Error::argument("item embeddings", format!("shape (N, {dim}) with D >= 1"), found));
    }
    let n_items = embeddings.rows();
    if ids.len() != n_items {
        return Err(Error::argument("item ids", format!("{n_items}, one per embedding"), ids.len()));
    }
    let mut unique = ids.to_vec();
    unique.sort_unstable();
    if let Some(pair) = unique.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::argument("item ids", "each id once", format!("id {} twice", pair[0])));
    }
    match embeddings.data().iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(at) => {
            let found = format!("{} in row {}", embeddings.data()[at], at / dim);
            Err(Error::argument("item embeddings", "finite numbers", found))
        }
    }
}

/// Ids ascending, and their rows.
fn sorted(ids: &[u64], embeddings: &Tensor) -> (Vec<u64>, Vec<f32>) {
    let mut order: Vec<usize> = (0..ids.len()).collect();
    order.sort_unstable_by_key(|&i| ids[i]);
    let rows = order.iter().flat_map(|&i| embeddings.row(i)).copied().collect();
    (order.iter().map(|&i| ids[i]).collect(), rows)
}

/// Rows of `matrix` divided by their l2 norm, clamped from below at `eps`.
fn l2_normalised(matrix: &Tensor, eps: f32) -> Tensor {
    let mut data = Vec::with_capacity(matrix.data().len());
    for row in matrix.data().chunks_exact(matrix.width()) {
        let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt().max(eps);
        data.extend(row.iter().map(|x| x / norm));
    }
    Tensor::new(matrix.shape().to_vec(), data)
}
