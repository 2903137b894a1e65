//! From embeddings to tables.

use std::collections::HashMap;
use std::sync::Arc;

use half::f16;

use super::source::{Run, Runs};
use super::unique::twice;
use super::{IndexOptions, Segment, Snapshot, StringIds, attribute_source, lists};
use crate::attributes::Column;
use crate::backend::{Backend, Similarity};
use crate::error::Parameter;
use crate::learn;
use crate::model::{InputRange, Mol};
use crate::tables::{Bytes, Dtype, Form, Tables};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// What all segments of an index share.
#[derive(Clone)]
pub(super) struct Blueprint {
    pub options: IndexOptions,
    pub form: Form,
    pub similarity: Option<Arc<Similarity>>,
    /// D.
    pub dim: usize,
    /// Which items can be added, and which queries answered.
    pub range: Arc<InputRange>,
    /// Whether ids are strings.
    pub has_string_ids: bool,
    /// Names and types of attributes, if items have some.
    pub columns: Arc<[Column]>,
}

impl Blueprint {
    /// For about `n_items` items in `range`.
    ///
    /// # Errors
    /// If a form was asked for that does not suit the model.
    pub fn new(
        options: IndexOptions,
        similarity: Option<Arc<Similarity>>,
        range: Arc<InputRange>,
        n_items: usize,
    ) -> Result<Blueprint> {
        let mol = similarity.as_ref().map(|similarity| &similarity.mol);
        let dim = range.item_dim();
        let form =
            options.form.unwrap_or_else(|| automatic_form(mol, options.dtype, n_items, options.max_component_bytes));
        if options.lists.is_some() && (form == Form::Raw || mol.is_none()) && !range.is_of_tokens() {
            return Err(Error::argument(
                Parameter::InvertedLists,
                "tables that keep components, or token embeddings",
                format!("form {form:?}"),
            ));
        }
        let (has_string_ids, columns) = (false, Arc::default());
        let blueprint = Blueprint { options, form, similarity, dim, range, has_string_ids, columns };
        blueprint.empty_tables()?;
        Ok(blueprint)
    }

    /// Tables without items.
    ///
    /// # Errors
    /// If the form does not suit the model.
    pub fn empty_tables(&self) -> Result<Tables> {
        match self.range.is_of_tokens() {
            true => Ok(Tables::of_tokens(self.dim, self.options.dtype)),
            false => Tables::new(self.dim, self.mol(), self.options.dtype, self.form),
        }
    }

    fn mol(&self) -> Option<&Mol<Tensor>> {
        self.similarity.as_ref().map(|similarity| &similarity.mol)
    }

    /// A segment of the next `size` items; `None` if there are no more.
    ///
    /// # Errors
    /// As [`Runs::take`], if an id is given twice, a number is too large for the format of the tables, or the device fails.
    pub fn segment(&self, backend: &Arc<dyn Backend>, runs: &mut Runs, size: usize) -> Result<Option<Segment>> {
        let mut tables = self.empty_tables()?;
        let mut ids: Vec<u64> = Vec::with_capacity(runs.left(size));
        let mut strings = runs.next_strings(size);
        tables.reserve(runs.left(size));
        runs.take(size, |Run { ids: more, rows, tokens }| {
            ids.extend_from_slice(more);
            let name_of = |row: usize| format!("id {}", more[row]);
            let Some((tokens, range)) = tokens else {
                return fill(&mut tables, backend.as_ref(), self.mol(), rows, name_of);
            };
            for (row, item) in range.clone().enumerate() {
                fits(self.options.dtype, "", tokens.vectors_of(item), 1, |_| name_of(row))?;
            }
            fits(self.options.dtype, "", rows, more.len(), name_of)?;
            tables.append_tokens(rows, range.map(|item| tokens.vectors_of(item)));
            Ok(())
        })?;
        if ids.is_empty() {
            return Ok(None);
        }
        // A source may have fewer items than it says.
        strings.iter_mut().for_each(|strings| strings.truncate(ids.len()));
        if !ids.is_sorted() {
            let mut order: Vec<usize> = (0..ids.len()).collect();
            order.sort_unstable_by_key(|&row| ids[row]);
            tables.reorder(&order);
            ids.sort_unstable();
            strings = strings.map(|strings| order.iter().map(|&row| strings[row].clone()).collect());
        }
        if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(twice(pair[0]));
        }
        self.cluster(backend.as_ref(), &mut tables)?;
        let strings = strings.map(|strings| StringIds::new(strings.iter().map(String::as_str)));
        let has_attributes = !self.columns.is_empty();
        let of_items = || attribute_source::of_items(runs.attributes(), &self.columns, &ids, strings.as_ref());
        let attributes = has_attributes.then(of_items).transpose()?;
        let segment = self.place(Bytes::Owned(ids.into()), Arc::new(tables), backend);
        Ok(Some(segment.with_strings(strings).with_attributes(attributes)))
    }

    /// Makes the inverted lists, or the centroids of token embeddings, that the options ask for.
    ///
    /// # Errors
    /// If the device fails.
    pub fn cluster(&self, backend: &dyn Backend, tables: &mut Tables) -> Result<()> {
        if let Some(options) = self.options.lists {
            match &mut tables.tokens {
                Some(tokens) => tokens.codes = lists::token_codes(backend, tokens, options)?,
                None => tables.lists = lists::lists(backend, tables, options)?,
            }
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
        Snapshot::new(version, segments, similarity, (self.options.dtype, self.range.clone()))
    }
}

/// The tables of items with raw embeddings (N, D), computed on a device, for scans of one's own
/// ([`Backend::load`]); an [`ItemIndex`](super::ItemIndex) makes its own.
///
/// # Errors
/// If there is no item, a value is not finite or too large, `mol` expects another width or does not suit `form`, or the device
/// fails.
pub fn item_tables(
    backend: &dyn Backend,
    embeddings: &Tensor,
    mol: Option<&Mol<Tensor>>,
    dtype: Dtype,
    form: Form,
) -> Result<Tables> {
    let dim = mol.map_or(embeddings.width(), Mol::item_dim);
    InputRange::new(mol, dim).check_items(&[], embeddings, None)?;
    if embeddings.rows() == 0 || embeddings.rows() > u32::MAX as usize {
        return Err(Error::argument(Parameter::ItemEmbeddings, "(N, D) with 1 <= N < 2^32", embeddings.rows()));
    }
    let mut tables = Tables::new(dim, mol, dtype, form)?;
    fill(&mut tables, backend, mol, embeddings.data(), |row| format!("row {row}"))?;
    Ok(tables)
}

/// Appends items with these raw embeddings.
fn fill(
    tables: &mut Tables,
    backend: &dyn Backend,
    mol: Option<&Mol<Tensor>>,
    embeddings: &[f32],
    name_of: impl Fn(usize) -> String,
) -> Result<()> {
    // Bounds the memory of intermediate arrays.
    const CHUNK: usize = 4096;
    let (dim, dtype) = (tables.raw.width(), tables.dtype());
    for (chunk, rows) in embeddings.chunks(CHUNK * dim).enumerate() {
        let n = rows.len() / dim;
        let name_of = |row| name_of(chunk * CHUNK + row);
        fits(dtype, "", rows, n, name_of)?;
        let side = mol.map(|mol| backend.item_side(mol, &Tensor::trusted(vec![n, dim], rows.to_vec()))).transpose()?;
        if let Some(side) = &side {
            let parts = [
                ("a component, ", Some(&side.components)),
                ("a gate part, ", side.gate.as_ref()),
                ("a principal component, ", side.principal.as_ref()),
            ];
            for (part, values) in parts {
                fits(dtype, part, values.map_or(&[], Vec::as_slice), n, name_of)?;
            }
        }
        tables.append(rows, side.as_ref());
    }
    Ok(())
}

/// Whether the numbers of `n` items fit the format.
fn fits(dtype: Dtype, part: &str, values: &[f32], n: usize, name_of: impl Fn(usize) -> String) -> Result<()> {
    let largest = f16::MAX.to_f32();
    match values.iter().position(|value| value.abs() > largest && dtype == Dtype::F16) {
        None => Ok(()),
        Some(at) => {
            let expected = format!("magnitudes up to {largest} for f16 tables (scale them down, or use f32 or int8)");
            let row = at / (values.len() / n.max(1)).max(1);
            let found = format!("{part}{:e} in {}", values[at], name_of(row));
            Err(Error::argument(Parameter::ItemEmbeddings, expected, found))
        }
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
    let bytes = (n_items as u64).saturating_mul((width * dtype.bytes()) as u64);
    if bytes > max_bytes && Form::Raw.suits(mol) { Form::Raw } else { Form::Components }
}

/// The one of `backends`, of which there is at least one, that has the fewest items of `segments`.
pub(super) fn least_used<'a>(backends: &'a [Arc<dyn Backend>], segments: &[Segment]) -> &'a Arc<dyn Backend> {
    let mut used: HashMap<*const (), usize> = HashMap::new();
    for segment in segments {
        *used.entry(Arc::as_ptr(segment.backend()).cast()).or_default() += segment.n_live();
    }
    let items = |backend: &&Arc<dyn Backend>| used.get(&Arc::as_ptr(backend).cast()).copied().unwrap_or(0);
    backends.iter().min_by_key(items).unwrap_or(&backends[0])
}

/// The similarity with the principal directions of the next `size` items, unless it has some.
pub(super) fn with_directions(
    backend: &dyn Backend,
    similarity: Option<Similarity>,
    runs: &mut Runs,
    size: usize,
) -> Result<Option<Arc<Similarity>>> {
    let Some(mut similarity) = similarity else { return Ok(None) };
    if similarity.mol.principal.is_none() && learn::has_directions(&similarity.mol) {
        let rows = runs.look_ahead(size)?;
        similarity.mol.principal = learn::directions(backend, &similarity.mol, &rows)?;
    }
    Ok(Some(Arc::new(similarity)))
}
