//! The files of the similarity, and of the encoder if there is one: an index folder needs no checkpoint.

use std::collections::BTreeMap;
use std::path::Path;

use super::content::damaged;
use super::tensors::{self, Part, checked, floats};
use crate::backend::Similarity;
use crate::checkpoint::{Checkpoint, Weights};
use crate::config::{CONFIG_KEY, ModelConfig, MolConfig, SimilarityConfig};
use crate::model::{CrossGate, Distilled, InputRange, Model, Mol, Tangents};
use crate::model_file::{ITEM_NAMES_KEY, ModelFile};
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
    late_interaction: bool,
    tensors: Vec<(String, Tensor)>,
    metadata: BTreeMap<String, String>,
}

impl IndexModel {
    /// The inner product of embeddings of width `dim`.
    pub fn dot(dim: usize) -> IndexModel {
        IndexModel { dim, similarity: None, late_interaction: false, tensors: Vec::new(), metadata: BTreeMap::new() }
    }

    /// Late interaction of token embeddings of width `dim`.
    pub fn late_interaction(dim: usize) -> IndexModel {
        IndexModel { late_interaction: true, ..IndexModel::dot(dim) }
    }

    /// Which queries and items it can score.
    pub(super) fn range(&self) -> InputRange {
        match self.late_interaction {
            true => InputRange::of_tokens(self.dim),
            false => InputRange::new(self.similarity.as_ref().map(|similarity| &similarity.mol), self.dim),
        }
    }

    /// A Mixture-of-Logits similarity, for searches by query embeddings.
    pub fn similarity(similarity: Similarity) -> IndexModel {
        let metadata = BTreeMap::from([(SIMILARITY_KEY.to_string(), similarity.mol.config.to_json())]);
        let tensors = similarity.mol.named_tensors();
        let dim = similarity.mol.item_dim();
        IndexModel { similarity: Some(similarity), tensors, metadata, ..IndexModel::dot(dim) }
    }

    /// What a model file holds: the whole model, or the similarity alone.
    ///
    /// # Errors
    /// If a tensor cannot be read.
    pub fn file(file: &ModelFile) -> Result<IndexModel> {
        match (file.model(), file.mol()) {
            (Some(model), _) => {
                let mut whole = IndexModel::whole(file.tensors()?, model);
                let names = file.item_names().map(|names| serde_json::json!(names).to_string());
                whole.metadata.extend(names.map(|names| (ITEM_NAMES_KEY.to_string(), names)));
                Ok(whole)
            }
            (None, Some(mol)) => Ok(IndexModel::similarity(Similarity { mol: mol.clone(), distilled: None })),
            (None, None) => Ok(IndexModel::dot(file.dim())),
        }
    }

    fn whole(tensors: Vec<(String, Tensor)>, model: &Model) -> IndexModel {
        let metadata = BTreeMap::from([(CONFIG_KEY.to_string(), model.config.to_json())]);
        let similarity = model.mol.clone().map(|mol| Similarity { mol, distilled: None });
        IndexModel { similarity, tensors, metadata, ..IndexModel::dot(model.config.query_embedding_dim()) }
    }

    /// What a folder has in `shard`.
    pub(super) fn stored(shard: &Shard, dim: usize, similarity: Option<Similarity>) -> Result<IndexModel> {
        shard.tensors().try_for_each(|name| shard.check(name))?;
        let checkpoint = Checkpoint::open(shard.path())?;
        let tensors = checkpoint.names().map(|name| Ok((name.to_string(), checkpoint.tensor(name)?)));
        let keys = [SIMILARITY_KEY, CONFIG_KEY, ITEM_NAMES_KEY].into_iter();
        let metadata = keys.filter_map(|key| Some((key.to_string(), shard.metadata().get(key)?.clone()))).collect();
        let tensors = tensors.collect::<Result<_>>()?;
        Ok(IndexModel { similarity, tensors, metadata, ..IndexModel::dot(dim) })
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

/// What a model file calls the items of the model.
pub(super) fn read_item_names(shard: &Shard) -> Result<Option<Vec<String>>> {
    let Some(json) = shard.metadata().get(ITEM_NAMES_KEY) else { return Ok(None) };
    let wrong =
        |error| damaged(shard.path(), format!("metadata `{ITEM_NAMES_KEY}`: expected an array of texts: {error}"));
    serde_json::from_str(json).map(Some).map_err(wrong)
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

/// Writes what an index has learned from queries. Returns the name of the file.
pub(super) fn write_distilled(transaction: &Transaction, distilled: &Distilled) -> Result<String> {
    let mut parts = Vec::new();
    let Distilled { cross: gate, tangents } = distilled;
    let best = tangents.as_ref().map(|tangents| tangents.best.iter().map(|&n| n as u64).collect::<Vec<u64>>());
    let hidden = gate.hidden.iter().map(|layer| ("hidden", layer));
    let layer = tangents.iter().map(|tangents| ("tangents", &tangents.layer));
    for (name, layer) in hidden.chain([("output", &gate.output)]).chain(layer) {
        parts.push(Part::new(format!("{name}.weight"), layer.weight.shape(), layer.weight.data()));
        parts.extend(layer.bias.iter().map(|bias| Part::new(format!("{name}.bias"), bias.shape(), bias.data())));
    }
    parts.extend(gate.linear.iter().map(|linear| Part::new("linear", linear.shape(), linear.data())));
    parts.extend(best.iter().map(|best| Part::new("tangents.best", &[best.len()], best.as_slice())));
    parts.extend(
        tangents.iter().map(|tangents| Part::new("tangents.mean", tangents.mean.shape(), tangents.mean.data())),
    );
    let specs: Vec<_> = parts.iter().map(|part| part.spec.clone()).collect();
    tensors::write(transaction.file("distilled", &BTreeMap::new(), &specs)?, &parts)
}

/// What an index has learned from queries, for a similarity of this shape.
pub(super) fn read_distilled(shard: &Shard, config: &MolConfig) -> Result<Distilled> {
    let n_logits = config.n_logits();
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
    let beside = if has("linear") { Some(floats(shard, "linear", &[direct, direct])?) } else { None };
    let tangents = if has("tangents.best") {
        let best = checked::<u64>(shard, "tangents.best", &[None])?;
        let best: Vec<usize> = best.values::<u64>().unwrap_or_default().iter().map(|&n| n as usize).collect();
        if best.is_empty() || !best.is_sorted() {
            return Err(damaged(
                shard.path(),
                format!("tensor `tangents.best`: expected ascending numbers, found {best:?}"),
            ));
        }
        let (p_q, p_x) = (config.query_dot_product_groups, config.item_dot_product_groups);
        let mean = floats(shard, "tangents.mean", &[Some(p_x), Some(config.dot_product_dimension)])?;
        let layer = linear("tangents", Tangents::n_features(p_q, p_x), Some(best.len() * n_logits))?;
        Some(Tangents { best, mean, layer })
    } else {
        None
    };
    Ok(Distilled { cross: CrossGate { hidden, output, linear: beside }, tangents })
}
