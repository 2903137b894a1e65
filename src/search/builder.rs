//! A searcher from one of several sources, on one device.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Searcher;
use super::history_encoder::HistoryEncoder;
use crate::attributes::Attributes;
use crate::backend::{Backend, Dtype, Similarity, select};
use crate::error::Parameter;
use crate::index::{IndexModel, IndexOptions, ItemIndex, ItemSource, OpenOptions};
use crate::model::{Model, Mol};
use crate::model_file::ModelFile;
use crate::tensor::Tensor;
use crate::token_embeddings::TokenEmbeddings;
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
    token_embeddings: Option<(&'a [u64], &'a TokenEmbeddings)>,
    items: Option<ItemSource<'a>>,
    attributes: Option<Attributes>,
    mol: Option<&'a Mol<Tensor>>,
    encoder: Option<&'a Model>,
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
    /// [`SearcherBuilder::embeddings`] or [`SearcherBuilder::items`] those are the items, and the file has their similarity, and
    /// the encoder if it is a whole model.
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

    /// Source: items `ids` (N) with their token embeddings, several for each. The similarity is late interaction (MaxSim): for
    /// each token embedding of a query the greatest inner product with one of the item's, summed. Queries come as
    /// [`QueryBatch::of_tokens`](crate::QueryBatch::of_tokens).
    pub fn token_embeddings(self, ids: &'a [u64], token_embeddings: &'a TokenEmbeddings) -> Self {
        SearcherBuilder { token_embeddings: Some((ids, token_embeddings)), ..self }
    }

    /// Source: as [`SearcherBuilder::embeddings`], for items that come a chunk at a time, from a file, say: with
    /// [`SearcherBuilder::save_to`] there may be more of them than fit into memory.
    pub fn items(self, items: ItemSource<'a>) -> Self {
        SearcherBuilder { items: Some(items), ..self }
    }

    /// Attributes of the items that the index is built of, for [`Request::conditions`](super::Request::conditions); see
    /// [`ItemSource::with_attributes`].
    pub fn attributes(self, attributes: Attributes) -> Self {
        SearcherBuilder { attributes: Some(attributes), ..self }
    }

    /// The Mixture-of-Logits similarity of [`SearcherBuilder::embeddings`] or [`SearcherBuilder::items`].
    pub fn mol(self, mol: &'a Mol<Tensor>) -> Self {
        SearcherBuilder { mol: Some(mol), ..self }
    }

    /// The whole model whose encoder makes queries ([`Searcher::encode`]), where the source has none: embeddings, or an index
    /// that was built for a similarity alone.
    pub fn encoder(self, model: &'a Model) -> Self {
        SearcherBuilder { encoder: Some(model), ..self }
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
            return opened(index, self.encoder);
        }
        let backend = match &self.backend {
            Some(backend) => backend.clone(),
            None => select::open(self.device.as_deref().unwrap_or("auto"))?,
        };
        if let Some(folder) = &self.folder {
            return opened(ItemIndex::open(folder, &[backend], self.open.unwrap_or_default())?, self.encoder);
        }
        let mut options = self.options.clone().unwrap_or_default();
        options.dtype = self.dtype.unwrap_or(options.dtype);
        let file = self.model_file;
        let mol = self.mol.or(file.and_then(ModelFile::mol));
        let source = match self.token_embeddings {
            Some((ids, tokens)) => Some(ItemSource::of_token_embeddings(ids, tokens)?),
            None => self.items.take(),
        };
        let items = match (self.model, self.embeddings, source, file) {
            (Some((model, ids)), ..) => Items::Rows { model, ids },
            (None, Some((ids, embeddings)), ..) => Items::Embeddings { ids, embeddings, mol },
            (None, None, Some(source), _) => Items::Source { source, mol },
            (None, None, None, Some(file)) => Items::Rows { model: file.whole_model()?, ids: &rows },
            (None, None, None, None) => return Err(one_source("none")),
        };
        let items = match self.attributes.take() {
            Some(attributes) => items.with_attributes(attributes)?,
            None => items,
        };
        let encoder = self.encoder.or(self.model.map(|(model, _)| model)).or(file.and_then(ModelFile::model));
        let index = match &self.save_to {
            Some(folder) => items.create(folder, &backend, file, options)?,
            None => items.index(&backend, options)?,
        };
        with_encoder(index, encoder)
    }

    /// The rows of a model file's item table that are the items.
    fn rows(&self) -> Result<Vec<u32>> {
        let Some(file) = self.model_file.filter(|_| self.has_table()) else { return Ok(Vec::new()) };
        let n_rows = file.whole_model()?.n_item_rows();
        let beyond = |id: u64| {
            let expected = format!("ids from 1 to {} (rows of the item table)", n_rows.saturating_sub(1));
            Error::argument(Parameter::ItemIds, expected, id)
        };
        match self.item_ids {
            Some(ids) => ids.iter().map(|&id| u32::try_from(id).map_err(|_| beyond(id))).collect(),
            None => Ok((1..n_rows as u32).collect()),
        }
    }

    /// Whether the items are those of the table of a model file.
    fn has_table(&self) -> bool {
        self.model_file.is_some() && !self.has_items()
    }

    /// Whether the items are the caller's own.
    fn has_items(&self) -> bool {
        self.embeddings.is_some() || self.token_embeddings.is_some() || self.items.is_some()
    }

    /// One source, and nothing that it has no use for.
    fn check(&self) -> Result<()> {
        let sources = [
            ("`folder`", self.folder.is_some()),
            ("`model`", self.model.is_some()),
            ("`model_file`", self.has_table()),
            ("`embeddings`", self.embeddings.is_some()),
            ("`token_embeddings`", self.token_embeddings.is_some()),
            ("`items`", self.items.is_some()),
            ("`index`", self.index.is_some()),
        ];
        let given: Vec<&str> = sources.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
        let [source] = given[..] else {
            return Err(one_source(if given.is_empty() { "none".to_string() } else { given.join(" and ") }));
        };
        let is_built = self.model.is_some() || self.model_file.is_some() || self.has_items();
        let mol_fits = (self.embeddings.is_some() || self.items.is_some()) && self.model_file.is_none();
        let encoder_fits = self.model.is_none() && self.model_file.is_none();
        let misplaced = [
            ("`device`", self.device.is_some(), self.index.is_none(), "an index that is not built yet"),
            ("`backend`", self.backend.is_some(), self.index.is_none(), "an index that is not built yet"),
            (
                "`dtype`",
                self.dtype.is_some(),
                is_built,
                "`model`, `model_file`, `embeddings`, `token_embeddings` or `items`: others have their format already",
            ),
            (
                "`options`",
                self.options.is_some(),
                is_built,
                "`model`, `model_file`, `embeddings`, `token_embeddings` or `items`: others are built already",
            ),
            (
                "`attributes`",
                self.attributes.is_some(),
                is_built,
                "`model`, `model_file`, `embeddings`, `token_embeddings` or `items`: others have theirs already",
            ),
            ("`open_options`", self.open.is_some(), self.folder.is_some(), "`folder`"),
            (
                "`mol`",
                self.mol.is_some(),
                mol_fits,
                "`embeddings` or `items` without `model_file`: others have their similarity",
            ),
            (
                "`model_file`",
                self.model_file.is_some(),
                self.token_embeddings.is_none(),
                "another source: late interaction has no model",
            ),
            ("`encoder`", self.encoder.is_some(), encoder_fits, "a source without one: a model has its encoder"),
            ("`item_ids`", self.item_ids.is_some(), self.has_table(), "the item table of `model_file`"),
            (
                "`save_to`",
                self.save_to.is_some(),
                is_built,
                "`model`, `model_file`, `embeddings`, `token_embeddings` or `items`: others have their place",
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
    Rows { model: &'a Model, ids: &'a [u32] },
    /// Embeddings of the caller's own.
    Embeddings { ids: &'a [u64], embeddings: &'a Tensor, mol: Option<&'a Mol<Tensor>> },
    /// The same, a chunk at a time.
    Source { source: ItemSource<'a>, mol: Option<&'a Mol<Tensor>> },
}

impl<'a> Items<'a> {
    /// The same, with attributes.
    fn with_attributes(self, attributes: Attributes) -> Result<Items<'a>> {
        let (source, mol) = match self {
            Items::Rows { model, ids } => (ItemSource::of_model(model, ids), model.mol.as_ref()),
            Items::Embeddings { ids, embeddings, mol } => {
                let read = |rows: &[usize]| Ok(embeddings.select_rows(rows));
                (ItemSource::of_rows(ids, [embeddings.rows(), embeddings.width()], read)?, mol)
            }
            Items::Source { source, mol } => (source, mol),
        };
        Ok(Items::Source { source: source.with_attributes(attributes), mol })
    }

    /// In memory.
    fn index(self, backend: &Arc<dyn Backend>, options: IndexOptions) -> Result<ItemIndex> {
        match self {
            Items::Rows { model, ids } => ItemIndex::from_model(backend.as_ref(), model, ids, options),
            Items::Embeddings { ids, embeddings, mol } => {
                ItemIndex::from_embeddings(backend.as_ref(), ids, embeddings, mol, options)
            }
            Items::Source { source, mol } => {
                ItemIndex::from_source(std::slice::from_ref(backend), mol.map(similarity), options, source)
            }
        }
    }

    /// In a new folder, with everything that is in `file`.
    fn create(
        self,
        folder: &Path,
        backend: &Arc<dyn Backend>,
        file: Option<&ModelFile>,
        options: IndexOptions,
    ) -> Result<ItemIndex> {
        let (mut source, mol) = match self {
            Items::Rows { model, ids } => (ItemSource::of_model(model, ids), model.mol.as_ref()),
            Items::Embeddings { ids, embeddings, mol } => {
                (ItemSource::of_embeddings(ids.to_vec(), embeddings.clone()), mol)
            }
            Items::Source { source, mol } => (source, mol),
        };
        let stored = match (file, mol) {
            _ if source.has_token_embeddings()? => IndexModel::late_interaction(source.dim()?),
            (Some(file), _) => IndexModel::file(file)?,
            (None, Some(mol)) => IndexModel::similarity(similarity(mol)),
            (None, None) => IndexModel::dot(source.dim()?),
        };
        ItemIndex::create(folder, std::slice::from_ref(backend), stored, options, source)
    }
}

/// A searcher over an index that was there already.
fn opened(index: ItemIndex, encoder: Option<&Model>) -> Result<Searcher> {
    match encoder.is_some() && index.has_encoder() {
        true => Err(Error::argument(Parameter::Encoder, "one, that of the index", "another one for it")),
        false => with_encoder(index, encoder),
    }
}

/// A searcher whose queries are made by the encoder of `model`, if there is one.
fn with_encoder(index: ItemIndex, model: Option<&Model>) -> Result<Searcher> {
    let searcher = Searcher::new(index);
    let (Some(model), Some(backend)) = (model, searcher.index.backends().into_iter().next()) else {
        return Ok(searcher);
    };
    let (own, dim) = (model.config.query_embedding_dim(), searcher.index.query_dim());
    if own != dim {
        let expected = format!("the encoder of a model with embeddings of width {dim}, that of queries");
        return Err(Error::argument(Parameter::Encoder, expected, own));
    }
    searcher.encoder.set(HistoryEncoder::new(backend.as_ref(), model)?).ok();
    Ok(searcher)
}

fn similarity(mol: &Mol<Tensor>) -> Similarity {
    Similarity { mol: mol.clone(), distilled: None }
}

fn one_source(found: impl ToString) -> Error {
    Error::argument(
        Parameter::Searcher,
        "exactly one of `folder`, `model`, `model_file`, `embeddings`, `token_embeddings`, `items` and `index`",
        found,
    )
}

impl Searcher {
    /// A builder without any settings.
    pub fn builder<'a>() -> SearcherBuilder<'a> {
        SearcherBuilder::default()
    }
}
