//! Fresh weights, distributed as in the reference; those of GRU4Rec and BERT4Rec as in RecBole 1.2.1.

use std::collections::BTreeMap;

use crate::Result;
use crate::checkpoint::Weights;
use crate::config::{EncoderConfig, ModelConfig, MolConfig};
use crate::model::{Model, Mol};
use crate::random::{Random, Stream};
use crate::tensor::Tensor;

/// Step of the random numbers that weights are made of; no training comes that far.
const STEP: u32 = u32::MAX;

/// Deviation of item embeddings and of HSTU's own tensors.
const SMALL: f64 = 0.02;

/// How the values of a tensor are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Law {
    Zero,
    One,
    /// Normal, with this deviation.
    Normal(f64),
    /// Normal with this deviation, no value further than two of them from 0.
    Truncated(f64),
    /// Uniform between plus and minus this bound.
    Uniform(f64),
}

/// A model with fresh weights for items 1..`n_item_rows`, distributed as in the reference, or, GRU4Rec and BERT4Rec, as in RecBole;
/// the same for the same seed.
///
/// # Errors
/// As [`ModelConfig::validate`].
pub fn fresh_model(config: &ModelConfig, n_item_rows: usize, seed: u64) -> Result<Model> {
    let (random, mut laws) = (Random::new(seed), Laws::new(config));
    Model::make(config.clone(), n_item_rows, &mut |name, shape| laws.tensor(random, name, shape))
}

/// A similarity alone with fresh weights, for raw embeddings of width `dim`, distributed as in the reference; the same for the same seed.
///
/// # Errors
/// As [`MolConfig::validate`].
pub fn fresh_similarity(config: &MolConfig, dim: usize, seed: u64) -> Result<Mol<Tensor>> {
    config.validate()?;
    let (random, mut laws) = (Random::new(seed), Laws::of_similarity());
    Mol::load(&mut Weights::made(0, &mut |name, shape| laws.tensor(random, name, shape)), config, dim)
}

impl Law {
    fn draw(self, stream: Stream, element: u64) -> f32 {
        let value = match self {
            Law::Zero => 0.0,
            Law::One => 1.0,
            Law::Normal(deviation) => deviation * stream.normal(element),
            Law::Truncated(deviation) => {
                // Eight tries each: none within two deviations in one of 10^10 cases.
                let tries = (0..8).map(|one| stream.normal(8 * element + one));
                deviation * tries.into_iter().find(|value| value.abs() <= 2.0).unwrap_or(0.0)
            }
            Law::Uniform(bound) => bound * (2.0 * f64::from(stream.uniform(element)) - 1.0),
        };
        value as f32
    }
}

/// The laws of a model's tensors.
struct Laws {
    encoder: Option<EncoderConfig>,
    /// Inputs of the layers whose weights were made.
    n_in: BTreeMap<String, usize>,
}

impl Laws {
    fn new(config: &ModelConfig) -> Laws {
        Laws { encoder: Some(config.encoder.clone()), n_in: BTreeMap::new() }
    }

    fn of_similarity() -> Laws {
        Laws { encoder: None, n_in: BTreeMap::new() }
    }

    /// A new tensor.
    fn tensor(&mut self, random: Random, name: &str, shape: &[usize]) -> Tensor {
        let law = self.of(name, shape);
        let stream = random.stream(STEP, crc32fast::hash(name.as_bytes()));
        let n_values = shape.iter().product::<usize>() as u64;
        Tensor::trusted(shape.to_vec(), (0..n_values).map(|element| law.draw(stream, element)).collect())
    }

    /// The law of the tensor that the reference calls `name`. Weights are asked for before biases.
    fn of(&mut self, name: &str, shape: &[usize]) -> Law {
        if let Some(layer) = name.strip_suffix(".weight") {
            self.n_in.insert(layer.to_string(), shape.get(1).copied().unwrap_or(1));
        }
        if name == "output.bias" {
            return Law::Zero;
        }
        match self.encoder {
            // MoL beside them is the reference's.
            Some(EncoderConfig::Gru4rec(_)) if !name.starts_with('_') => return self.gru4rec(name, shape),
            Some(EncoderConfig::Bert4rec(_) | EncoderConfig::Transformer(_)) if !name.starts_with('_') => {
                return bert4rec(name, shape);
            }
            _ => {}
        }
        let ends_with = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
        if name == "_embedding_module._item_emb.weight" {
            Law::Truncated(SMALL)
        } else if name == "_input_features_preproc._pos_emb.weight"
            && !matches!(self.encoder, Some(EncoderConfig::Hstu(_)))
        {
            Law::Truncated((1.0 / shape[1] as f64).sqrt())
        } else if ends_with(&["._uvqk", "._pos_w", "._ts_w"]) {
            Law::Normal(SMALL)
        } else if ends_with(&["._o.weight"]) {
            // Xavier, uniform.
            Law::Uniform((6.0 / (shape[0] + shape[1]) as f64).sqrt())
        } else if shape.len() >= 2 {
            // Xavier, normal; also of position embeddings under HSTU, of uid tables and of the biases of gated layers.
            Law::Normal((2.0 / (shape[0] + shape[1]) as f64).sqrt())
        } else {
            self.bias(name)
        }
    }

    /// Xavier, the dense layer as `torch.nn.Linear`, the biases of gates as `torch.nn.GRU`.
    fn gru4rec(&self, name: &str, shape: &[usize]) -> Law {
        let sides = shape.iter().sum::<usize>() as f64;
        match name.split_once('.') {
            Some(("gru", _)) if shape.len() == 2 => Law::Uniform((6.0 / sides).sqrt()),
            Some(("gru", _)) => Law::Uniform((3.0 / sides).sqrt()),
            Some(("dense", _)) => Law::Uniform((1.0 / self.n_in.get("dense").map_or(1.0, |&n_in| n_in as f64)).sqrt()),
            _ => Law::Normal((2.0 / sides).sqrt()),
        }
    }

    /// Most biases begin at zero, others as `torch.nn.Linear` has them.
    fn bias(&self, name: &str) -> Law {
        let of_encoder = name.ends_with("._o.bias") || name.contains("._conv1d.");
        // The query projection behind a gated layer; a plain one is layer 1 and begins at zero.
        let of_query = name.ends_with("._query_emb_proj_module.2.bias");
        let n_in = name.strip_suffix(".bias").and_then(|layer| self.n_in.get(layer)).copied();
        match n_in.filter(|_| of_encoder || of_query) {
            Some(n_in) => Law::Uniform(1.0 / (n_in as f64).sqrt()),
            None => Law::Zero,
        }
    }
}

/// Matrices are normal, layer norms begin as such.
fn bert4rec(name: &str, shape: &[usize]) -> Law {
    match shape.len() {
        2 => Law::Normal(SMALL),
        _ if name.ends_with("norm.weight") => Law::One,
        _ => Law::Zero,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::config::find_config;

    fn model(case: &str, seed: u64) -> Model {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle").join(case);
        let config = find_config(&Checkpoint::open(folder.join("model.safetensors")).unwrap(), None).unwrap();
        fresh_model(&config, 221, seed).unwrap()
    }

    /// A number that no value exceeds, and the standard deviation, of each tensor whose name ends so.
    fn assert_distributed(case: &str, expected: &[(&str, f64, f64)]) {
        assert_tensors(case, model(case, 3).named_tensors(), expected);
    }

    fn assert_tensors(case: &str, mut model: Vec<(String, Tensor)>, expected: &[(&str, f64, f64)]) {
        for &(ends, most, deviation) in expected {
            let before = model.len();
            model.retain(|(name, tensor)| {
                let is_meant = name.ends_with(ends);
                if is_meant {
                    let values = || tensor.data().iter().map(|&value| f64::from(value));
                    let n = tensor.data().len() as f64;
                    let (mean, squares) = (values().sum::<f64>() / n, values().map(|v| v * v).sum::<f64>() / n);
                    assert!(values().all(|value| value.abs() <= most), "{name}");
                    // Five standard deviations of the estimates; the square of a normal number has the deviation sqrt(2).
                    assert!(mean.abs() <= 5.0 * deviation / n.sqrt(), "{name}: mean {mean}");
                    let ratio = if deviation == 0.0 { 1.0 } else { squares / (deviation * deviation) };
                    assert!(
                        (ratio - 1.0).abs() < 5.0 * (2.0 / n).sqrt(),
                        "{name}: variance {ratio} of what it should be"
                    );
                }
                !is_meant
            });
            assert!(model.len() < before, "{case}: no {ends}");
        }
        let left: Vec<&String> = model.iter().map(|(name, _)| name).collect();
        assert!(left.is_empty(), "{case}: {left:?}");
    }

    const ANY: f64 = f64::INFINITY;

    #[test]
    fn tensors_of_hstu_and_mol_have_their_distributions() {
        let expected = [
            ("_item_emb.weight", 0.04, 0.01759),
            ("_pos_emb.weight", ANY, 0.22646),
            ("._uvqk", ANY, 0.02),
            ("._pos_w", ANY, 0.02),
            ("._ts_w", ANY, 0.02),
            ("._o.weight", 0.43302, 0.25),
            ("._o.bias", 0.25, 0.14434),
            ("_query_emb_proj_module.1._w", ANY, 0.15811),
            ("_query_emb_proj_module.1._b", ANY, 0.17541),
            ("_query_emb_proj_module.2.weight", ANY, 0.15811),
            ("_query_emb_proj_module.2.bias", 0.17678, 0.10206),
            ("_item_emb_proj_module.1.weight", ANY, 0.20412),
            ("_item_emb_proj_module.1.bias", 0.0, 0.0),
            ("_uid_embeddings_0.weight", ANY, 0.17277),
            ("_query_only_partial_module.0.weight", ANY, 0.2357),
            ("_query_only_partial_module.2.weight", ANY, 0.26726),
            ("_item_only_partial_module.1.weight", ANY, 0.2132),
            ("_item_only_partial_module.3.weight", ANY, 0.2357),
            ("_qi_partial_module.1.weight", ANY, 0.25),
            ("_qi_partial_module.3.weight", ANY, 0.25),
            (".bias", 0.0, 0.0),
        ];
        assert_distributed("tiny_hstu_mol", &expected);
    }

    #[test]
    fn tensors_of_sasrec_have_their_distributions() {
        let expected = [
            ("_item_emb.weight", 0.04, 0.01759),
            ("_pos_emb.weight", 0.5, 0.21991),
            (".in_proj_weight", ANY, 0.17678),
            (".in_proj_bias", 0.0, 0.0),
            (".out_proj.weight", ANY, 0.25),
            (".out_proj.bias", 0.0, 0.0),
            ("._conv1d.0.weight", ANY, 0.22361),
            ("._conv1d.0.bias", 0.25, 0.14434),
            ("._conv1d.3.weight", ANY, 0.22361),
            ("._conv1d.3.bias", 0.20413, 0.11785),
        ];
        assert_distributed("tiny_sasrec_dot", &expected);
        // Where the query projection has no hidden layer, its bias is zero; item projections' always is.
        let zero = |case: &str, name: &str| {
            let named = model(case, 3).named_tensors();
            let tensor = &named.iter().find(|(found, _)| found.ends_with(name)).unwrap().1;
            tensor.data().iter().all(|&value| value == 0.0)
        };
        assert!(zero("tiny_hstu_mol_qhidden0", "_query_emb_proj_module.1.bias"));
        assert!(zero("tiny_hstu_mol_itemhidden", "_item_emb_proj_module.2.bias"));
        assert!(!zero("tiny_hstu_mol_itemhidden", "_item_emb_proj_module.1._b"));
    }

    #[test]
    fn tensors_of_gru4rec_and_bert4rec_have_their_distributions() {
        let expected = [
            ("item_embedding.weight", ANY, 0.09186),
            ("gru.weight_ih_l0", 0.26112, 0.15076),
            ("gru.weight_hh_l0", 0.25001, 0.14434),
            ("gru.weight_ih_l1", 0.25001, 0.14434),
            ("gru.weight_hh_l1", 0.25001, 0.14434),
            ("dense.weight", 0.20413, 0.11785),
            ("dense.bias", 0.20413, 0.11785),
        ];
        assert_distributed("tiny_gru4rec", &expected);
        let biases = model("tiny_gru4rec_bias", 3).named_tensors();
        let bias = &biases.iter().find(|(name, _)| name == "gru.bias_hh_l1").unwrap().1;
        let most = bias.data().iter().fold(0.0f32, |most, value| most.max(value.abs()));
        assert!((0.2..0.25).contains(&most), "{most}");
        let mut named = model("tiny_bert4rec", 3).named_tensors();
        named.retain(|(name, tensor)| !(name.ends_with("norm.weight") && tensor.data().iter().all(|&one| one == 1.0)));
        assert!(named.iter().all(|(name, _)| !name.ends_with("norm.weight")));
        assert_eq!(model("tiny_bert4rec", 3).n_item_rows(), 221);
        assert_tensors("tiny_bert4rec", named, &[("bias", 0.0, 0.0), ("weight", ANY, 0.02)]);
    }

    #[test]
    fn the_same_seed_gives_the_same_weights() {
        let named = |seed| model("tiny_hstu_mol", seed).named_tensors();
        assert_eq!(named(1), named(1));
        let (one, other) = (named(1), named(2));
        let equal: Vec<&str> = one.iter().zip(&other).filter(|(a, b)| a == b).map(|(a, _)| a.0.as_str()).collect();
        assert!(equal.iter().all(|name| name.ends_with(".bias")) && equal.len() < one.len() / 2, "{equal:?}");
    }
}
