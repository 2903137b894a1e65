//! Files with a model, or with a similarity alone.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::checkpoint::{Checkpoint, Weights, save_safetensors};
use crate::config::{CONFIG_KEY, MolConfig, find_config, has_config};
use crate::error::Parameter;
use crate::import::{ImportOptions, import, import_mol};
use crate::model::{Model, Mol};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Key of the JSON text in the metadata of a `.safetensors` file that holds a Mixture-of-Logits similarity and nothing
/// else: `{"format": 1, "dim": D, "mol": {...}}`, the last as in [`MolConfig`]. `export_mol` of the Python package
/// writes such files.
pub const MOL_KEY: &str = "rails.mol";

/// Key of the JSON text in the metadata of a `.safetensors` file with the ids that another program gave to items: an array of texts, the
/// first one of item 1.
pub const ITEM_NAMES_KEY: &str = "rails.item_names";

/// Version of that JSON form; any change of meaning raises it.
const FORMAT: u64 = 1;

/// A trained model in a file: the whole of it, or only its Mixture-of-Logits similarity, for embeddings of the caller's own.
///
/// ```no_run
/// use rails_wgpu::{ModelFile, Searcher};
///
/// # fn main() -> rails_wgpu::Result<()> {
/// let file = ModelFile::open("model.pt", None)?; // with model.gin or config.gin beside it
/// let searcher = Searcher::builder().model_file(&file).device("auto").build()?;
/// # Ok(())
/// # }
/// ```
pub struct ModelFile {
    checkpoint: Checkpoint,
    content: Content,
    item_names: Option<Vec<String>>,
}

enum Content {
    Model(Box<Model>),
    Mol(Box<Mol<Tensor>>),
}

#[derive(Deserialize)]
struct Stored {
    dim: usize,
    mol: MolConfig,
}

impl ModelFile {
    /// Loads the file at `path`. The hyper-parameters are those of the `.gin` file `config`, or those inside the file, or
    /// those of a `.gin` file beside it (of the same name, or `config.gin`). Without any, it is read as the checkpoint of another
    /// program, see [`import`](crate::import).
    ///
    /// # Errors
    /// If a file cannot be read, there are no hyper-parameters, or as [`Model::load`] and [`import()`].
    pub fn open(path: impl AsRef<Path>, config: Option<&Path>) -> Result<ModelFile> {
        ModelFile::open_with(path, config, &ImportOptions::default())
    }

    /// The same, of which `options` say what a checkpoint of another program does not say itself.
    ///
    /// # Errors
    /// As [`ModelFile::open`], and [`Error::Argument`] if something is said that the model does not have, or that the file says itself.
    pub fn open_with(path: impl AsRef<Path>, config: Option<&Path>, options: &ImportOptions) -> Result<ModelFile> {
        let path = path.as_ref();
        let checkpoint = Checkpoint::open(path)?;
        if let (Some(config), Some(source)) = (config, options.other_program()) {
            let expected = format!(
                "no .gin file (--config, RAILS_CONFIG) beside --from {source}: it is for models of this program"
            );
            return Err(Error::argument("config", expected, config.display()));
        }
        if let (None, Some(stored)) = (config, stored(&checkpoint)?) {
            options.check_none(path)?;
            let content = Content::Mol(Box::new(load_mol(&checkpoint, &stored)?));
            return Ok(ModelFile { checkpoint, content, item_names: None });
        }
        let is_own = options.source.is_none() && (config.is_some() || has_config(&checkpoint));
        let imported = if is_own || options.source.is_some() { None } else { import_mol(&checkpoint)? };
        if let Some(imported) = imported {
            options.check_none(path)?;
            let checkpoint = Checkpoint::from_tensors(imported.tensors, path)?;
            let content =
                Content::Mol(Box::new(load_mol(&checkpoint, &Stored { dim: imported.dim, mol: imported.config })?));
            return Ok(ModelFile { checkpoint, content, item_names: None });
        }
        let imported = if is_own { None } else { import(&checkpoint, options)? };
        if let Some(imported) = imported {
            let checkpoint = Checkpoint::from_tensors(imported.tensors, path)?;
            let content = Content::Model(Box::new(Model::load(&checkpoint, imported.config)?));
            return Ok(ModelFile { checkpoint, content, item_names: imported.item_names });
        }
        let config = find_config(&checkpoint, config)?;
        options.check_none(path)?;
        let content = Content::Model(Box::new(Model::load(&checkpoint, config)?));
        let item_names = stored_item_names(&checkpoint)?;
        Ok(ModelFile { checkpoint, content, item_names })
    }

    /// The ids that another program gave to the items 1, 2, ..., where its file says so.
    pub fn item_names(&self) -> Option<&[String]> {
        self.item_names.as_deref()
    }

    /// The same, with `names` of the items 1, 2, ..., an empty one for an item without a name.
    pub fn with_item_names(self, names: Vec<String>) -> ModelFile {
        ModelFile { item_names: Some(names), ..self }
    }

    /// The file itself.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The whole model, if that is what it is.
    pub fn model(&self) -> Option<&Model> {
        match &self.content {
            Content::Model(model) => Some(model),
            Content::Mol(_) => None,
        }
    }

    /// The whole model.
    ///
    /// # Errors
    /// If it is a similarity only.
    pub fn whole_model(&self) -> Result<&Model> {
        let found = || format!("{}, a similarity only", self.checkpoint.path().display());
        self.model().ok_or_else(|| Error::argument(Parameter::Model, "a whole model with an item table", found()))
    }

    /// Writes one self-contained `.safetensors` file, with the hyper-parameters inside, which [`ModelFile::open`] opens.
    ///
    /// # Errors
    /// If a tensor cannot be read, or the file cannot be written; a file that was there before is still there then.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let metadata = match &self.content {
            Content::Model(model) => {
                let names = self.item_names.iter().map(|names| (ITEM_NAMES_KEY, serde_json::json!(names).to_string()));
                let entries = names.chain([(CONFIG_KEY, model.config.to_json())]);
                entries.map(|(key, value)| (key.to_string(), value)).collect()
            }
            Content::Mol(mol) => self.checkpoint.metadata().cloned().unwrap_or_else(|| mol_metadata(mol)),
        };
        save_safetensors(path.as_ref(), &self.tensors()?, &metadata)
    }

    /// Every tensor that means something, by name.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn tensors(&self) -> Result<Vec<(String, Tensor)>> {
        let names = self.checkpoint.names().filter(|name| *name != Weights::IGNORED);
        names.map(|name| Ok((name.to_string(), self.checkpoint.tensor(name)?))).collect()
    }

    /// The Mixture-of-Logits similarity; `None` for a model with a dot product.
    pub fn mol(&self) -> Option<&Mol<Tensor>> {
        match &self.content {
            Content::Model(model) => model.mol.as_ref(),
            Content::Mol(mol) => Some(mol),
        }
    }

    /// D: width of raw embeddings.
    pub fn dim(&self) -> usize {
        match &self.content {
            Content::Model(model) => model.config.query_embedding_dim(),
            Content::Mol(mol) => mol.item_dim(),
        }
    }
}

/// Writes a similarity alone to a `.safetensors` file, which [`ModelFile::open`] opens.
///
/// # Errors
/// If it cannot be written; a file that was there before is still there then.
pub fn save_mol(path: impl AsRef<Path>, mol: &Mol<Tensor>) -> Result<()> {
    save_safetensors(path.as_ref(), &mol.named_tensors(), &mol_metadata(mol))
}

/// What the metadata of a file say of a similarity alone.
fn mol_metadata(mol: &Mol<Tensor>) -> BTreeMap<String, String> {
    let json = serde_json::json!({ "format": FORMAT, "dim": mol.item_dim(), "mol": mol.config });
    [(MOL_KEY.to_string(), json.to_string())].into()
}

/// The hyper-parameters of a similarity under [`MOL_KEY`], if there are any.
///
/// # Errors
/// [`Error::Config`] if they are of another format version, or cannot be used.
pub fn stored_mol_config(checkpoint: &Checkpoint) -> Result<Option<MolConfig>> {
    Ok(stored(checkpoint)?.map(|stored| stored.mol))
}

fn stored(checkpoint: &Checkpoint) -> Result<Option<Stored>> {
    let Some(json) = checkpoint.metadata().and_then(|metadata| metadata.get(MOL_KEY)) else { return Ok(None) };
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
    Ok(Some(stored))
}

fn stored_item_names(checkpoint: &Checkpoint) -> Result<Option<Vec<String>>> {
    let Some(json) = checkpoint.metadata().and_then(|metadata| metadata.get(ITEM_NAMES_KEY)) else { return Ok(None) };
    serde_json::from_str(json).map(Some).map_err(|error| Error::Config {
        path: checkpoint.path().to_path_buf(),
        line: 0,
        key: ITEM_NAMES_KEY.to_string(),
        expected: "a JSON array of texts".to_string(),
        found: error.to_string(),
    })
}

fn load_mol(checkpoint: &Checkpoint, stored: &Stored) -> Result<Mol<Tensor>> {
    let mut weights = Weights::new(checkpoint);
    let mol = Mol::load(&mut weights, &stored.mol, stored.dim)?;
    weights.finish()?;
    Ok(mol)
}
