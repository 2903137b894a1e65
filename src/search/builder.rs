//! A searcher from one of several sources, on one device.

use std::path::PathBuf;
use std::sync::Arc;

use super::Searcher;
use crate::backend::{Backend, Dtype, select};
use crate::error::Parameter;
use crate::index::{IndexOptions, ItemIndex, OpenOptions};
use crate::model::{Model, Mol};
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
    embeddings: Option<(&'a [u64], &'a Tensor)>,
    mol: Option<&'a Mol<Tensor>>,
    index: Option<ItemIndex>,
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

    /// Source: items `ids` (N) with their raw embeddings (N, D), see [`ItemIndex::from_embeddings`]. The similarity is the
    /// inner product, unless [`SearcherBuilder::mol`] gives one.
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
        let mut options = self.options.unwrap_or_default();
        options.dtype = self.dtype.unwrap_or(options.dtype);
        let backend = backend.as_ref();
        let index = match (self.model, self.embeddings) {
            (Some((model, ids)), _) => ItemIndex::from_model(backend, model, ids, options)?,
            (None, Some((ids, embeddings))) => ItemIndex::from_embeddings(backend, ids, embeddings, self.mol, options)?,
            (None, None) => return Err(one_source("none")),
        };
        Ok(Searcher::new(index))
    }

    /// One source, and nothing that it has no use for.
    fn check(&self) -> Result<()> {
        let sources = [
            ("`folder`", self.folder.is_some()),
            ("`model`", self.model.is_some()),
            ("`embeddings`", self.embeddings.is_some()),
            ("`index`", self.index.is_some()),
        ];
        let given: Vec<&str> = sources.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
        let [source] = given[..] else {
            return Err(one_source(if given.is_empty() { "none".to_string() } else { given.join(" and ") }));
        };
        let is_built = self.model.is_some() || self.embeddings.is_some();
        let misplaced = [
            ("`device`", self.device.is_some(), self.index.is_none(), "an index that is not built yet"),
            ("`backend`", self.backend.is_some(), self.index.is_none(), "an index that is not built yet"),
            ("`dtype`", self.dtype.is_some(), is_built, "`model` or `embeddings`: others have their format already"),
            ("`options`", self.options.is_some(), is_built, "`model` or `embeddings`: others are built already"),
            ("`open_options`", self.open.is_some(), self.folder.is_some(), "`folder`"),
            ("`mol`", self.mol.is_some(), self.embeddings.is_some(), "`embeddings`: others have their similarity"),
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

fn one_source(found: impl ToString) -> Error {
    Error::argument(Parameter::Searcher, "exactly one of `folder`, `model`, `embeddings` and `index`", found)
}

impl Searcher {
    /// A builder without any settings.
    pub fn builder<'a>() -> SearcherBuilder<'a> {
        SearcherBuilder::default()
    }
}
