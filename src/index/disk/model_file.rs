//! The files of the similarity, and of the encoder if there is one: an index folder needs no checkpoint.

use std::collections::BTreeMap;
use std::path::Path;

use super::content::damaged;
use super::tensors::{self, Part, floats};
use crate::backend::Similarity;
use crate::checkpoint::{Checkpoint, Weights};
use crate::config::{CONFIG_KEY, ModelConfig, MolConfig, SimilarityConfig};
use crate::model::{CrossGate, Model, Mol};
use crate::ops::Linear;
use crate::store::{Shard, Transaction};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Metadata: hyper-parameters of a similarity that is stored alone.
const SIMILARITY_KEY: &str = "rails.similarity";

/// What the names of tensors of a similarity begin with.
const SIMILARITY: &str = "_ndp_module.";

/// What a new index is for: how items are compared with queries, and perhaps how queries are made.
pub struct IndexModel {
    pub(super) dim: usize,
    pub(super) similarity: Option<Similarity>,
    tensors: Vec<(String, Tensor)>,
    metadata: BTreeMap<String, String>,
}

impl IndexModel {
    /// The inner product of embeddings of width `dim`.
    pub fn dot(dim: usize) -> IndexModel {
        IndexModel { dim, similarity: None, tensors: Vec::new(), metadata: BTreeMap::new() }
    }

    /// A Mixture-of-Logits similarity, for searches by query embeddings.
    pub fn similarity(similarity: Similarity) -> IndexModel {
        let metadata = BTreeMap::from([(SIMILARITY_KEY.to_string(), similarity.mol.config.to_json())]);
        let tensors = similarity.mol.tensors();
        IndexModel { dim: similarity.mol.item_dim(), similarity: Some(similarity), tensors, metadata }
    }

    /// The whole model of a checkpoint: searches by histories need nothing but the index.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn checkpoint(checkpoint: &Checkpoint, config: ModelConfig) -> Result<IndexModel> {
        let model = Model::load(checkpoint, config)?;
        let names = checkpoint.names().filter(|name| *name != Weights::IGNORED);
        let tensors = names.map(|name| Ok((name.to_string(), checkpoint.tensor(name)?))).collect::<Result<_>>()?;
        let metadata = BTreeMap::from([(CONFIG_KEY.to_string(), model.config.to_json())]);
        let similarity = model.mol.map(|mol| Similarity { mol, distilled: None });
        Ok(IndexModel { dim: model.config.item_embedding_dim, similarity, tensors, metadata })
    }

    /// Writes the file, if there is anything to write. Returns its name.
    pub(super) fn write(&self, transaction: &Transaction) -> Result<Option<String>> {
        if self.tensors.is_empty() {
            return Ok(None);
        }
        let parts: Vec<_> =
            self.tensors.iter().map(|(name, tensor)| Part::new(name, tensor.shape(), tensor.data())).collect();
        let specs: Vec<_> = parts.iter().map(|part| part.spec.clone()).collect();
        tensors::write(transaction.file("model", &self.metadata, &specs)?, &parts).map(Some)
    }
}

/// The similarity in a model file; `None` if it is an inner product. `dim`: width of raw embeddings.
pub(super) fn read_similarity(shard: &Shard, dim: usize) -> Result<Option<Mol<Tensor>>> {
    let path = shard.path();
    shard.tensors().filter(|name| name.starts_with(SIMILARITY)).try_for_each(|name| shard.check(name))?;
    let read = || {
        let config = match (shard.metadata().get(SIMILARITY_KEY), shard.metadata().get(CONFIG_KEY)) {
            (Some(json), _) => MolConfig::from_json(json, path)?,
            (None, Some(json)) => match ModelConfig::from_json(json, path)?.similarity {
                SimilarityConfig::DotProduct => return Ok(None),
                SimilarityConfig::Mol(config) => config,
            },
            (None, None) => return Err(damaged(path, "there are no hyper-parameters in the metadata")),
        };
        let checkpoint = Checkpoint::open(path)?;
        Mol::load(&mut Weights::new(&checkpoint), &config, dim).map(Some)
    };
    read().map_err(|error| unusable(path, error))
}

/// Whether a model file holds an encoder.
pub(super) fn has_encoder(shard: &Shard) -> bool {
    shard.metadata().contains_key(CONFIG_KEY)
}

/// The whole model in a model file, if there is an encoder.
pub(super) fn read_model(shard: &Shard) -> Result<Option<Model>> {
    let Some(json) = shard.metadata().get(CONFIG_KEY) else { return Ok(None) };
    let path = shard.path();
    shard.tensors().try_for_each(|name| shard.check(name))?;
    let read = || Model::load(&Checkpoint::open(path)?, ModelConfig::from_json(json, path)?);
    read().map(Some).map_err(|error| unusable(path, error))
}

fn unusable(path: &Path, error: Error) -> Error {
    match error {
        Error::Index { .. } => error,
        other => damaged(path, format!("the model cannot be used: {other}")),
    }
}

/// Writes principal directions. Returns the name of the file.
pub(super) fn write_principal(transaction: &Transaction, layer: &Linear<Tensor>) -> Result<String> {
    let part = Part::new("principal.weight", layer.weight.shape(), layer.weight.data());
    tensors::write(transaction.file("principal", &BTreeMap::new(), std::slice::from_ref(&part.spec))?, &[part])
}

/// The principal directions of components of `width` numbers.
pub(super) fn read_principal(shard: &Shard, width: usize) -> Result<Linear<Tensor>> {
    let weight = floats(shard, "principal.weight", &[Some(width), None])?;
    let n_out = weight.width();
    Ok(Linear { weight, bias: None, n_in: width, n_out })
}

/// Writes a distilled gate. Returns the name of the file.
pub(super) fn write_distilled(transaction: &Transaction, gate: &CrossGate<Tensor>) -> Result<String> {
    let mut parts = Vec::new();
    let hidden = gate.hidden.iter().map(|layer| ("hidden", layer));
    for (name, layer) in hidden.chain([("output", &gate.output)]) {
        parts.push(Part::new(format!("{name}.weight"), layer.weight.shape(), layer.weight.data()));
        parts.extend(layer.bias.iter().map(|bias| Part::new(format!("{name}.bias"), bias.shape(), bias.data())));
    }
    parts.extend(gate.linear.iter().map(|linear| Part::new("linear", linear.shape(), linear.data())));
    let specs: Vec<_> = parts.iter().map(|part| part.spec.clone()).collect();
    tensors::write(transaction.file("distilled", &BTreeMap::new(), &specs)?, &parts)
}

/// The distilled gate of a similarity with `n_logits` logits.
pub(super) fn read_distilled(shard: &Shard, n_logits: usize) -> Result<CrossGate<Tensor>> {
    let has = |name: &str| shard.tensors().any(|tensor| tensor == name);
    let linear = |name: &str, n_in: usize, n_out: Option<usize>| {
        let weight = floats(shard, &format!("{name}.weight"), &[Some(n_in), n_out])?;
        let (bias, n_out) = (format!("{name}.bias"), weight.width());
        let bias = if has(&bias) { Some(floats(shard, &bias, &[Some(n_out)])?) } else { None };
        Ok::<_, Error>(Linear { weight, bias, n_in, n_out })
    };
    let hidden = if has("hidden.weight") { Some(linear("hidden", n_logits, None)?) } else { None };
    let output = linear("output", hidden.as_ref().map_or(n_logits, |layer| layer.n_out), Some(n_logits))?;
    let direct = Some(n_logits);
    let linear = if has("linear") { Some(floats(shard, "linear", &[direct, direct])?) } else { None };
    Ok(CrossGate { hidden, output, linear })
}
