//! A model file, a device and an index behind one handle: what the bindings for C and Python are made of.

mod model_file;

pub use model_file::{MOL_KEY, ModelFile};

use std::path::Path;
use std::sync::Arc;

use crate::backend::{Backend, Dtype, QueryBatch, QueryEncoder, select};
use crate::checkpoint::Checkpoint;
use crate::config::{ModelConfig, find_config};
use crate::error::Parameter;
use crate::index::{IndexModel, IndexOptions, ItemIndex, ItemSource, ListOptions, OpenOptions};
use crate::model::Model;
use crate::search::{Answer, Request, Searcher};
use crate::sequence::{History, SequenceBatch};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Encodes histories and searches items on one device.
pub struct Retriever {
    backend: Arc<dyn Backend>,
    encoding: Option<Encoding>,
    dim: usize,
    searcher: Searcher,
}

/// What turns histories into queries.
struct Encoding {
    encoder: Box<dyn QueryEncoder>,
    config: ModelConfig,
    n_item_rows: usize,
}

impl Retriever {
    /// Indexes rows `item_ids` of the model's own item table; `None`: all of them, 1 and up.
    ///
    /// # Errors
    /// If the file holds no whole model, there is no such device, or as [`ItemIndex::from_model`].
    pub fn from_model(
        file: &ModelFile,
        item_ids: Option<&[u64]>,
        device: &str,
        options: impl Into<IndexOptions>,
    ) -> Result<Retriever> {
        let found = "a file with a similarity only";
        let model =
            file.model().ok_or_else(|| Error::argument(Parameter::Model, "a whole model with an item table", found))?;
        let item_ids = rows(model, item_ids)?;
        let backend = select::open(device)?;
        let index = ItemIndex::from_model(backend.as_ref(), model, &item_ids, options)?;
        Retriever::new(backend, Some(file), model.config.item_embedding_dim, index)
    }

    /// Indexes items `ids` with their raw embeddings (N, D). The similarity is that of `file`; without one, the inner
    /// product of the embeddings as they are.
    ///
    /// # Errors
    /// If there is no such device, or as [`ItemIndex::from_embeddings`].
    pub fn from_embeddings(
        ids: &[u64],
        embeddings: &Tensor,
        file: Option<&ModelFile>,
        device: &str,
        options: impl Into<IndexOptions>,
    ) -> Result<Retriever> {
        let backend = select::open(device)?;
        let mol = file.and_then(ModelFile::mol);
        let index = ItemIndex::from_embeddings(backend.as_ref(), ids, embeddings, mol, options)?;
        Retriever::new(backend, file, embeddings.width(), index)
    }

    /// Indexes items of a checkpoint, as [`Retriever::from_model`] does, in a new folder, with the model, and opens it.
    /// `config` as for [`ModelFile::open`].
    ///
    /// # Errors
    /// If a file cannot be read, or as [`ItemIndex::create`].
    pub fn create_index(
        folder: impl AsRef<Path>,
        checkpoint: impl AsRef<Path>,
        config: Option<&Path>,
        item_ids: Option<&[u64]>,
        device: &str,
        options: IndexOptions,
    ) -> Result<Retriever> {
        let checkpoint = Checkpoint::open(checkpoint)?;
        let config = find_config(&checkpoint, config)?;
        let model = Model::load(&checkpoint, config.clone())?;
        let item_ids = rows(&model, item_ids)?;
        let backend = select::open(device)?;
        let (stored, source) = (IndexModel::checkpoint(&checkpoint, config)?, ItemSource::of_model(&model, &item_ids));
        let index = ItemIndex::create(folder, std::slice::from_ref(&backend), stored, options, source)?;
        let dim = index.dim();
        Retriever::of_model(backend, Some(&model), dim, index)
    }

    /// Opens an index folder with everything in it: tables, similarity, encoder if it was built with one. Changes of the
    /// items are changes of the folder.
    ///
    /// # Errors
    /// If there is no such device, or as [`ItemIndex::open`].
    pub fn from_index(folder: impl AsRef<Path>, device: &str, options: OpenOptions) -> Result<Retriever> {
        let backend = select::open(device)?;
        let index = ItemIndex::open(folder, std::slice::from_ref(&backend), options)?;
        let (model, dim) = (index.model()?, index.dim());
        Retriever::of_model(backend, model.as_ref(), dim, index)
    }

    fn new(backend: Arc<dyn Backend>, file: Option<&ModelFile>, dim: usize, index: ItemIndex) -> Result<Retriever> {
        Retriever::of_model(backend, file.and_then(ModelFile::model), dim, index)
    }

    fn of_model(backend: Arc<dyn Backend>, model: Option<&Model>, dim: usize, index: ItemIndex) -> Result<Retriever> {
        let encoding = |model: &Model| {
            let encoder = backend.encoder(&model.encoder)?;
            Ok(Encoding { encoder, config: model.config.clone(), n_item_rows: model.n_item_rows() })
        };
        let encoding = model.map(encoding).transpose()?;
        Ok(Retriever { backend, encoding, dim, searcher: Searcher::new(index) })
    }

    /// Learns from queries (B, D) like those that will be asked, a few hundred of them, what the algorithms `distilled` and
    /// `cascade` need and `tangent` is better with. An index of a folder keeps it there.
    ///
    /// # Errors
    /// As [`ItemIndex::distill`], or if `user_ids` do not suit.
    pub fn distill(&self, queries: Tensor, user_ids: Option<Vec<i64>>) -> Result<()> {
        self.index().distill(&batch(queries, user_ids))
    }

    /// The device.
    pub fn backend(&self) -> &dyn Backend {
        self.backend.as_ref()
    }

    /// The items, which may be added and removed at any time.
    pub fn index(&self) -> &ItemIndex {
        self.searcher.index()
    }

    /// D: width of raw item and query embeddings.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// (B, D): query embeddings of the histories.
    ///
    /// # Errors
    /// If there is no encoder, or as [`SequenceBatch::new`] and [`QueryEncoder::encode`].
    pub fn encode(&self, histories: &[History]) -> Result<Tensor> {
        let Some(Encoding { encoder, config, n_item_rows }) = &self.encoding else {
            return Err(Error::argument(Parameter::Encoder, "a whole model", "a similarity only, or none at all"));
        };
        let batch = SequenceBatch::new(histories, config, *n_item_rows)?;
        if batch.is_empty() {
            return Ok(Tensor::trusted(vec![0, self.dim], Vec::new()));
        }
        encoder.encode(&batch)
    }

    /// Answers `request` for raw query embeddings (B, D). `user_ids` has one id per query; only models with uid
    /// embeddings need them.
    ///
    /// # Errors
    /// If a model with uid embeddings gets no users, or as [`Searcher::answer`].
    pub fn search(&self, queries: Tensor, user_ids: Option<Vec<i64>>, request: &Request) -> Result<Answer> {
        let batch = batch(queries, user_ids);
        if batch.is_empty() {
            return Ok(Answer::default());
        }
        self.searcher.answer(&batch, request)
    }
}

fn batch(queries: Tensor, user_ids: Option<Vec<i64>>) -> QueryBatch {
    QueryBatch { user_ids, ..QueryBatch::new(queries) }
}

/// Rows `item_ids` of the model's item table; `None`: all of them, 1 and up.
fn rows(model: &Model, item_ids: Option<&[u64]>) -> Result<Vec<u32>> {
    let beyond = |id: u64| {
        let expected = format!("ids in 1..={} (rows of the item table)", model.n_item_rows().saturating_sub(1));
        Error::argument(Parameter::ItemIds, expected, id)
    };
    match item_ids {
        Some(ids) => ids.iter().map(|&id| u32::try_from(id).map_err(|_| beyond(id))).collect(),
        None => Ok((1..model.n_item_rows() as u32).collect()),
    }
}

/// Choices for an index by the names of a [`Dtype`] and of a form (see [`IndexOptions::parse_form`]); `n_lists` inverted
/// lists of each kind (0: as many as suit the number of items; `None`: none); bytes of tables that may stay on the device.
///
/// # Errors
/// If there is no such name.
pub fn index_options(
    dtype: &str,
    form: &str,
    n_lists: Option<usize>,
    device_memory: Option<u64>,
) -> Result<IndexOptions> {
    Ok(IndexOptions::from(dtype.parse::<Dtype>()?)
        .with_form(IndexOptions::parse_form(form)?)
        .with_lists(n_lists.map(ListOptions::new))
        .with_device_memory(device_memory))
}
