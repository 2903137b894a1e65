//! A searcher from one of several sources, on one device.

use std::path::PathBuf;
use std::sync::Arc;

use super::Searcher;
use super::history_encoder::HistoryEncoder;
use crate::backend::{Backend, Dtype, Similarity, select};
use crate::error::Parameter;
use crate::index::{IndexModel, IndexOptions, ItemIndex, ItemSource, OpenOptions};
use crate::model::{Model, Mol};
use crate::model_file::ModelFile;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Makes a [`Searcher`]: exactly one source of items, a device, and how to keep the items.
///
/// ```
/// use rails_wgpu::{Dtype, Searcher, Tensor};
///
/// # fn main() -> rails_wgpu::Result<()> {
/// let items = Tensor::from_rows([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]);
/// let searcher = Searcher::builder().embeddings(&[10, 20, 30], &items).device("cpu").dtype(Dtype::F16).build()?;
/// assert_eq!(searcher.index().len(), 3);
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
#[must_use = "nothing happens before `build`"]
pub struct SearcherBuilder<'a> {
    folder: Option<PathBuf>,
    model: Option<(&'a Model, &'a [u32])>,
    model_file: Option<&'a ModelFile>,
    item_ids: Option<&'a [u64]>,
    embeddings: Option<(&'a [u64], &'a Tensor)>,
    mol: Option<&'a Mol<Tensor>>,
    index: Option<ItemIndex>,
    save_to: Option<PathBuf>,
    device: Option<String>,
    backend: Option<Arc<dyn Backend>>,
    dtype: Option<Dtype>,
    options: Option<IndexOptions>,
    open: Option<OpenOptions>,
}

impl<'a> SearcherBuilder<'a> {
    /// Source: an index folder, as [`ItemIndex::create`] or `rails-bench index build` writes it.
    pub fn folder(self, folder: impl Into<PathBuf>) -> Self {
        SearcherBuilder { folder: Some(folder.into()), ..self }
    }

    /// Source: rows `ids` of the model's own item table, see [`ItemIndex::from_model`].
    pub fn model(self, model: &'a Model, ids: &'a [u32]) -> Self {
        SearcherBuilder { model: Some((model, ids)), ..self }
    }

    /// Source: the item table of a whole model; all rows of it, from 1 on, unless [`SearcherBuilder::item_ids`] names some. With
    /// [`SearcherBuilder::embeddings`] those are the items, and the file has their similarity, and the encoder if it is a whole
    /// model.
    pub fn model_file(self, file: &'a ModelFile) -> Self {
        SearcherBuilder { model_file: Some(file), ..self }
    }

    /// Rows (N) of the item table of [`SearcherBuilder::model_file`].
    pub fn item_ids(self, ids: &'a [u64]) -> Self {
        SearcherBuilder { item_ids: Some(ids), ..self }
    }

    /// Source: items `ids` (N) with their raw embeddings (N, D), see [`ItemIndex::from_embeddings`]. The similarity is the
    /// inner product, unless [`SearcherBuilder::mol`] or [`SearcherBuilder::model_file`] gives another one.
    pub fn embeddings(self, ids: &'a [u64], embeddings: &'a Tensor) -> Self {
        SearcherBuilder { embeddings: Some((ids, embeddings)), ..self }
    }

    /// The Mixture-of-Logits similarity of [`SearcherBuilder::embeddings`].
    pub fn mol(self, mol: &'a Mol<Tensor>) -> Self {
        SearcherBuilder { mol: Some(mol), ..self }
    }

    /// Source: an index that is there already, on the devices it was built for.
    pub fn index(self, index: ItemIndex) -> Self {
        SearcherBuilder { index: Some(index), ..self }
    }

    /// A new folder to store the index in, with everything that a search needs, and the encoder of a
    /// [`SearcherBuilder::model_file`]: [`SearcherBuilder::folder`] opens it. Changes of the items are changes of the folder.
    pub fn save_to(self, folder: impl Into<PathBuf>) -> Self {
        SearcherBuilder { save_to: Some(folder.into()), ..self }
    }

    /// The device called so, see [`select::choose`]; `auto` unless said otherwise.
    pub fn device(self, name: impl Into<String>) -> Self {
        SearcherBuilder { device: Some(name.into()), ..self }
    }

    /// A device that is open already: one that also encodes, or that of a host application.
    pub fn backend(self, backend: Arc<dyn Backend>) -> Self {
        SearcherBuilder { backend: Some(backend), ..self }
    }

    /// Number format of the tables; f32 unless said otherwise.
    pub fn dtype(self, dtype: Dtype) -> Self {
        SearcherBuilder { dtype: Some(dtype), ..self }
    }

    /// How a new index is built.
    pub fn options(self, options: IndexOptions) -> Self {
        SearcherBuilder { options: Some(options), ..self }
    }

    /// How [`SearcherBuilder::folder`] is opened.
    pub fn open_options(self, options: OpenOptions) -> Self {
        SearcherBuilder { open: Some(options), ..self }
    }

    /// Opens the device, and builds or opens the index.
    ///
    /// # Errors
    /// If there is not exactly one source, or a setting that does not belong to it; or as [`select::open`],
    /// [`ItemIndex::open`], [`ItemIndex::from_model`] and [`ItemIndex::from_embeddings`].
    pub fn build(mut self) -> Result<Searcher> {
        self.check()?;
        let rows = self.rows()?;
        if let Some(index) = self.index.take() {
            return Ok(Searcher::new(index));
        }
        let backend = match self.backend {
            Some(backend) => backend,
            None => select::open(self.device.as_deref().unwrap_or("auto"))?,
        };
        if let Some(folder) = self.folder {
            return Ok(Searcher::new(ItemIndex::open(folder, &[backend], self.open.unwrap_or_default())?));
        }
        let mut options = self.options.clone().unwrap_or_default();
        options.dtype = self.dtype.unwrap_or(options.dtype);
        let items = match (self.model, self.model_file, self.embeddings) {
            (_, file, Some((ids, embeddings))) => Items::Given { ids, embeddings, file, mol: self.mol },
            (Some((model, ids)), ..) => Items::Rows { model, ids, file: None },
            (None, Some(file), None) => Items::Rows { model: whole(file)?, ids: &rows, file: Some(file) },
            (None, None, None) => return Err(one_source("none")),
        };
        let index = match self.save_to {
            Some(folder) => {
                ItemIndex::create(folder, std::slice::from_ref(&backend), items.stored()?, options, items.source())?
            }
            None => items.index(backend.as_ref(), options)?,
        };
        let searcher = Searcher::new(index);
        if let Some(model) = items.model() {
            searcher.encoder.set(HistoryEncoder::new(backend.as_ref(), model)?).ok();
        }
        Ok(searcher)
    }

    /// The rows of a model file's item table that are the items.
    fn rows(&self) -> Result<Vec<u32>> {
        let (Some(file), None) = (self.model_file, self.embeddings) else { return Ok(Vec::new()) };
        let n_rows = whole(file)?.n_item_rows();
        let beyond = |id: u64| {
            let expected = format!("ids from 1 to {} (rows of the item table)", n_rows.saturating_sub(1));
            Error::argument(Parameter::ItemIds, expected, id)
        };
        match self.item_ids {
            Some(ids) => ids.iter().map(|&id| u32::try_from(id).map_err(|_| beyond(id))).collect(),
            None => Ok((1..n_rows as u32).collect()),
        }
    }

    /// One source, and nothing that it has no use for.
    fn check(&self) -> Result<()> {
        let sources = [
            ("`folder`", self.folder.is_some()),
            ("`model`", self.model.is_some()),
            ("`model_file`", self.model_file.is_some() && self.embeddings.is_none()),
            ("`embeddings`", self.embeddings.is_some()),
            ("`index`", self.index.is_some()),
        ];
        let given: Vec<&str> = sources.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
        let [source] = given[..] else {
            return Err(one_source(if given.is_empty() { "none".to_string() } else { given.join(" and ") }));
        };
        let is_built = self.model.is_some() || self.model_file.is_some() || self.embeddings.is_some();
        let mol_fits = self.embeddings.is_some() && self.model_file.is_none();
        let has_table = self.model_file.is_some() && self.embeddings.is_none();
        let misplaced = [
            ("`device`", self.device.is_some(), self.index.is_none(), "an index that is not built yet"),
            ("`backend`", self.backend.is_some(), self.index.is_none(), "an index that is not built yet"),
            (
                "`dtype`",
                self.dtype.is_some(),
                is_built,
                "`model`, `model_file` or `embeddings`: others have their format already",
            ),
            (
                "`options`",
                self.options.is_some(),
                is_built,
                "`model`, `model_file` or `embeddings`: others are built already",
            ),
            ("`open_options`", self.open.is_some(), self.folder.is_some(), "`folder`"),
            ("`mol`", self.mol.is_some(), mol_fits, "`embeddings` without `model_file`: others have their similarity"),
            ("`item_ids`", self.item_ids.is_some(), has_table, "the item table of `model_file`"),
            (
                "`save_to`",
                self.save_to.is_some(),
                is_built,
                "`model`, `model_file` or `embeddings`: others have their place",
            ),
        ];
        if let Some((name, _, _, fits)) = misplaced.iter().find(|(_, given, fits, _)| *given && !fits) {
            return Err(Error::argument(
                Parameter::Searcher,
                format!("{name} only with {fits}"),
                format!("it with {source}"),
            ));
        }
        match self.device.is_some() && self.backend.is_some() {
            true => Err(Error::argument(Parameter::Searcher, "a `device` or a `backend`", "both")),
            false => Ok(()),
        }
    }
}

/// What an index is built of.
enum Items<'a> {
    /// Rows of the model's own item table.
    Rows { model: &'a Model, ids: &'a [u32], file: Option<&'a ModelFile> },
    /// Embeddings of the caller's own.
    Given { ids: &'a [u64], embeddings: &'a Tensor, file: Option<&'a ModelFile>, mol: Option<&'a Mol<Tensor>> },
}

impl<'a> Items<'a> {
    /// In memory.
    fn index(&self, backend: &dyn Backend, options: IndexOptions) -> Result<ItemIndex> {
        match *self {
            Items::Rows { model, ids, .. } => ItemIndex::from_model(backend, model, ids, options),
            Items::Given { ids, embeddings, file, mol } => {
                let mol = mol.or(file.and_then(ModelFile::mol));
                ItemIndex::from_embeddings(backend, ids, embeddings, mol, options)
            }
        }
    }

    fn source(&self) -> ItemSource<'a> {
        match *self {
            Items::Rows { model, ids, .. } => ItemSource::of_model(model, ids),
            Items::Given { ids, embeddings, .. } => ItemSource::of_embeddings(ids.to_vec(), embeddings.clone()),
        }
    }

    /// What an index folder has beside the items.
    fn stored(&self) -> Result<IndexModel> {
        let (mol, dim) = match *self {
            Items::Rows { file: Some(file), .. } | Items::Given { file: Some(file), .. } => {
                return IndexModel::file(file);
            }
            Items::Rows { model, .. } => (model.mol.as_ref(), model.config.item_embedding_dim),
            Items::Given { embeddings, mol, .. } => (mol, embeddings.width()),
        };
        let similarity = mol.map(|mol| Similarity { mol: mol.clone(), distilled: None });
        Ok(similarity.map_or_else(|| IndexModel::dot(dim), IndexModel::similarity))
    }

    /// The whole model, if it is known.
    fn model(&self) -> Option<&'a Model> {
        match *self {
            Items::Rows { model, .. } => Some(model),
            Items::Given { file, .. } => file.and_then(ModelFile::model),
        }
    }
}

/// The model of a file that has more than a similarity.
fn whole(file: &ModelFile) -> Result<&Model> {
    let missing =
        || Error::argument(Parameter::Model, "a whole model with an item table", "a file with a similarity only");
    file.model().ok_or_else(missing)
}

fn one_source(found: impl ToString) -> Error {
    Error::argument(
        Parameter::Searcher,
        "exactly one of `folder`, `model`, `model_file`, `embeddings` and `index`",
        found,
    )
}

impl Searcher {
    /// A builder without any settings.
    pub fn builder<'a>() -> SearcherBuilder<'a> {
        SearcherBuilder::default()
    }
}
