//! Files that a retriever can be made from.

use std::path::Path;

use serde::Deserialize;

use crate::checkpoint::{Checkpoint, Weights};
use crate::config::{MolConfig, find_config};
use crate::model::{Model, Mol};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Key of the JSON text in the metadata of a `.safetensors` file that holds a Mixture-of-Logits similarity and nothing
/// else: `{"format": 1, "dim": D, "mol": {...}}`, the last as in [`MolConfig`]. `export_mol` of the Python package
/// writes such files.
pub const MOL_KEY: &str = "rails.mol";

/// Version of that JSON form; any change of meaning raises it.
const FORMAT: u64 = 1;

/// What a file holds.
#[non_exhaustive]
pub enum ModelFile {
    /// A whole model: encoder, item table, similarity.
    Model(Box<Model>),
    /// A Mixture-of-Logits similarity, for embeddings of the caller's own.
    Mol(Box<Mol<Tensor>>),
}

#[derive(Deserialize)]
struct Stored {
    dim: usize,
    mol: MolConfig,
}

impl ModelFile {
    /// Loads the file at `path`. The hyper-parameters are those of the `.gin` file `config`, or those inside the file, or
    /// those of a `.gin` file beside it (of the same name, or `config.gin`).
    ///
    /// # Errors
    /// If a file cannot be read, there are no hyper-parameters, or as [`Model::load`].
    pub fn open(path: impl AsRef<Path>, config: Option<&Path>) -> Result<ModelFile> {
        let path = path.as_ref();
        let checkpoint = Checkpoint::open(path)?;
        let similarity = checkpoint.metadata().and_then(|metadata| metadata.get(MOL_KEY));
        if let (None, Some(json)) = (config, similarity) {
            return Ok(ModelFile::Mol(Box::new(load_mol(&checkpoint, json)?)));
        }
        let config = find_config(&checkpoint, config)?;
        Ok(ModelFile::Model(Box::new(Model::load(&checkpoint, config)?)))
    }

    /// The whole model, if that is what it is.
    pub fn model(&self) -> Option<&Model> {
        match self {
            ModelFile::Model(model) => Some(model),
            ModelFile::Mol(_) => None,
        }
    }

    /// The Mixture-of-Logits similarity; `None` for a model with a dot product.
    pub fn mol(&self) -> Option<&Mol<Tensor>> {
        match self {
            ModelFile::Model(model) => model.mol.as_ref(),
            ModelFile::Mol(mol) => Some(mol),
        }
    }

    /// D: width of raw embeddings.
    pub fn dim(&self) -> usize {
        match self {
            ModelFile::Model(model) => model.config.item_embedding_dim,
            ModelFile::Mol(mol) => mol.item_dim(),
        }
    }
}

fn load_mol(checkpoint: &Checkpoint, json: &str) -> Result<Mol<Tensor>> {
    let wrong = |expected: String, found: String| Error::Config {
        path: checkpoint.path().to_path_buf(),
        line: 0,
        key: MOL_KEY.to_string(),
        expected,
        found,
    };
    let stored: serde_json::Value =
        serde_json::from_str(json).map_err(|error| wrong("JSON".to_string(), error.to_string()))?;
    let format = &stored["format"];
    if format.as_u64() != Some(FORMAT) {
        return Err(wrong(format!("format version {FORMAT}, all this program knows"), format.to_string()));
    }
    let stored: Stored = serde_json::from_value(stored)
        .map_err(|error| wrong("what `export_mol` writes".to_string(), error.to_string()))?;
    stored.mol.validate()?;
    let mut weights = Weights::new(checkpoint);
    let mol = Mol::load(&mut weights, &stored.mol, stored.dim)?;
    weights.finish()?;
    Ok(mol)
}
