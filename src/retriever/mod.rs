//! A model file, a device and an index behind one handle: what the bindings for C and Python are made of.

mod model_file;

pub use model_file::{MOL_KEY, ModelFile};

use std::sync::Arc;

use crate::backend::{Backend, Dtype, QueryBatch, QueryEncoder, select};
use crate::config::ModelConfig;
use crate::index::{IndexOptions, ItemIndex};
use crate::model::{Model, Mol};
use crate::search::{Answer, Request, Searcher};
use crate::sequence::{History, SequenceBatch};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Encodes histories and searches items on one device.
pub struct Retriever {
    backend: Arc<dyn Backend>,
    encoding: Option<Encoding>,
    dim: usize,
    has_uid_tables: bool,
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
        let model = file.model().ok_or_else(|| Error::argument("model", "a whole model with an item table", found))?;
        let beyond = |id: u64| {
            let expected = format!("ids in 1..={} (rows of the item table)", model.n_item_rows().saturating_sub(1));
            Error::argument("item ids", expected, id)
        };
        let item_ids: Vec<u32> = match item_ids {
            Some(ids) => ids.iter().map(|&id| u32::try_from(id).map_err(|_| beyond(id))).collect::<Result<_>>()?,
            None => (1..model.n_item_rows() as u32).collect(),
        };
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

    fn new(backend: Arc<dyn Backend>, file: Option<&ModelFile>, dim: usize, index: ItemIndex) -> Result<Retriever> {
        let encoding = |model: &Model| {
            let encoder = backend.encoder(&model.encoder)?;
            Ok(Encoding { encoder, config: model.config.clone(), n_item_rows: model.n_item_rows() })
        };
        let encoding = file.and_then(ModelFile::model).map(encoding).transpose()?;
        let has_tables = |mol: &Mol<Tensor>| !mol.uid_tables.is_empty();
        let has_uid_tables = file.and_then(ModelFile::mol).is_some_and(has_tables);
        Ok(Retriever { backend, encoding, dim, has_uid_tables, searcher: Searcher::new(index) })
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
            return Err(Error::argument("encoder", "a whole model", "a similarity only, or none at all"));
        };
        let batch = SequenceBatch::new(histories, config, *n_item_rows)?;
        if batch.is_empty() {
            return Ok(Tensor::new(vec![0, self.dim], Vec::new()));
        }
        encoder.encode(&batch)
    }

    /// Answers `request` for raw query embeddings (B, D). `user_ids` has one id per query; only models with uid
    /// embeddings need them.
    ///
    /// # Errors
    /// If a model with uid embeddings gets no users, or as [`Searcher::answer`].
    pub fn search(&self, queries: Tensor, user_ids: Option<Vec<i64>>, request: &Request) -> Result<Answer> {
        let n_queries = queries.rows();
        let user_ids = match user_ids {
            Some(user_ids) => user_ids,
            None if self.has_uid_tables => {
                let expected = "one per query: the model has uid embeddings";
                return Err(Error::argument("user ids", expected, "none"));
            }
            None => vec![0; n_queries],
        };
        if user_ids.len() != n_queries {
            return Err(Error::argument("user ids", format!("{n_queries}, one per query"), user_ids.len()));
        }
        if n_queries == 0 {
            return Ok(Answer::default());
        }
        self.searcher.answer(&QueryBatch { embeddings: queries, user_ids }, request)
    }
}

/// The number format called `name`: `f32`, `f16` or `i8`.
///
/// # Errors
/// If there is no such format.
pub fn dtype(name: &str) -> Result<Dtype> {
    match name {
        "f32" => Ok(Dtype::F32),
        "f16" => Ok(Dtype::F16),
        "i8" => Ok(Dtype::I8),
        _ => Err(Error::argument("dtype", "f32, f16 or i8", format!("`{name}`"))),
    }
}
