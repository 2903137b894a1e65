//! From embeddings to tables.

use std::collections::HashMap;
use std::sync::Arc;

use super::{IndexOptions, Segment, Snapshot, lists};
use crate::backend::{Backend, Similarity};
use crate::error::Parameter;
use crate::model::Mol;
use crate::tables::{Bytes, Dtype, Form, Tables};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// What all segments of an index share.
#[derive(Clone)]
pub(super) struct Blueprint {
    pub options: IndexOptions,
    pub form: Form,
    pub similarity: Option<Arc<Similarity>>,
    pub dim: usize,
}

impl Blueprint {
    /// For about `n_items` items of width `dim`.
    ///
    /// # Errors
    /// If a form was asked for that does not suit the model.
    pub fn new(
        options: IndexOptions,
        similarity: Option<Arc<Similarity>>,
        dim: usize,
        n_items: usize,
    ) -> Result<Blueprint> {
        let mol = similarity.as_ref().map(|similarity| &similarity.mol);
        let form =
            options.form.unwrap_or_else(|| automatic_form(mol, options.dtype, n_items, options.max_component_bytes));
        Tables::new(dim, mol, options.dtype, form)?;
        if options.lists.is_some() && (form == Form::Raw || mol.is_none()) {
            return Err(Error::argument(
                Parameter::InvertedLists,
                "tables that keep components",
                format!("form {form:?}"),
            ));
        }
        Ok(Blueprint { options, form, similarity, dim })
    }

    fn mol(&self) -> Option<&Mol<Tensor>> {
        self.similarity.as_ref().map(|similarity| &similarity.mol)
    }

    /// A segment of items with ascending `ids` and raw embeddings (n, D).
    ///
    /// # Errors
    /// If the device fails.
    pub fn segment(&self, backend: &Arc<dyn Backend>, ids: Vec<u64>, rows: Vec<f32>) -> Result<Segment> {
        let embeddings = Tensor::trusted(vec![ids.len(), self.dim], rows);
        let mut tables = backend.tables(&embeddings, self.mol(), self.options.dtype, self.form)?;
        self.cluster(backend.as_ref(), &mut tables)?;
        Ok(self.place(Bytes::Owned(ids.into()), Arc::new(tables), backend))
    }

    /// Makes the inverted lists that the options ask for.
    ///
    /// # Errors
    /// If the device fails.
    pub fn cluster(&self, backend: &dyn Backend, tables: &mut Tables) -> Result<()> {
        if let Some(options) = self.options.lists {
            tables.lists = lists::lists(backend, tables, options)?;
        }
        Ok(())
    }

    /// A segment of tables that are there already.
    pub fn place(&self, ids: Bytes<u64>, tables: Arc<Tables>, backend: &Arc<dyn Backend>) -> Segment {
        Segment::new(ids, tables, backend.clone(), self.similarity.clone())
    }

    /// A version made of `segments`, searched by `similarity`, on their devices as far as these have room.
    ///
    /// # Errors
    /// As [`Snapshot::new`] and [`Segment::load`].
    pub fn snapshot(
        &self,
        version: u64,
        segments: Vec<Segment>,
        similarity: Option<Arc<Similarity>>,
    ) -> Result<Snapshot> {
        let segments = segments.into_iter().map(|segment| segment.searched_by(similarity.as_ref())).collect();
        let segments = within_memory(self.options.device_memory, segments);
        segments.iter().try_for_each(Segment::load)?;
        Snapshot::new(version, segments, similarity, self.options.dtype)
    }
}

/// Lets segments pass through a device whose memory the ones before them have filled.
fn within_memory(memory: Option<u64>, segments: Vec<Segment>) -> Vec<Segment> {
    let Some(memory) = memory else { return segments };
    let mut used: HashMap<*const (), u64> = HashMap::new();
    let place = |segment: Segment| {
        let used = used.entry(Arc::as_ptr(segment.backend()).cast()).or_default();
        *used += segment.tables().bytes();
        segment.streamed(*used > memory)
    };
    segments.into_iter().map(place).collect()
}

/// Components as they are, unless they take more than `large` bytes and need not be kept.
fn automatic_form(mol: Option<&Mol<Tensor>>, dtype: Dtype, n_items: usize, max_bytes: u64) -> Form {
    let Some(mol) = mol else { return Form::Components };
    let width = mol.config.item_dot_product_groups * mol.config.dot_product_dimension;
    let bytes = (n_items * width * dtype.bytes()) as u64;
    if bytes > max_bytes && Form::Raw.suits(mol) { Form::Raw } else { Form::Components }
}
