//! Files of token poolings.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{PoolingMethod, TokenPooling, transposed};
use crate::checkpoint::{Checkpoint, Weights, save_safetensors};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Key of the JSON text in the metadata of a `.safetensors` file with a token pooling: `{"format": 1, "method": "first_tokens",
/// "l2_norm": null}` or `{"format": 1, "method": "mixture", "softmax": true, "l2_norm": eps}`. Its tensors are `n_components` (1), that is
/// P, of first tokens, `mixing_weights` (P, T) of a mixture and, if there is a projection, `projection.weight` (D_P, D) and maybe
/// `projection.bias` (D_P).
pub const TOKEN_POOLING_KEY: &str = "rails.token_pooling";

/// Version of that JSON form; any change of meaning raises it.
const FORMAT: u64 = 1;

const N_COMPONENTS: &str = "n_components";
const MIXING_WEIGHTS: &str = "mixing_weights";
const PROJECTION: &str = "projection.weight";
const PROJECTION_BIAS: &str = "projection.bias";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u64,
    method: Method,
    #[serde(skip_serializing_if = "Option::is_none")]
    softmax: Option<bool>,
    l2_norm: Option<f32>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Method {
    FirstTokens,
    Mixture,
}

impl TokenPooling {
    /// Reads a file that [`TokenPooling::save`] or the Python package has written; see [`TOKEN_POOLING_KEY`].
    ///
    /// # Errors
    /// If it cannot be read, or is none of a token pooling.
    pub fn open(path: impl AsRef<Path>) -> Result<TokenPooling> {
        let checkpoint = Checkpoint::open(path)?;
        let stored = stored(&checkpoint)?;
        let mut weights = Weights::new(&checkpoint);
        let pooling = match (stored.method, stored.softmax) {
            (Method::FirstTokens, None) => {
                let n_components = weights.take(N_COMPONENTS, &[1])?.data()[0];
                if n_components.fract() != 0.0 {
                    return Err(wrong(&checkpoint, "a whole number `n_components`", &n_components.to_string()));
                }
                TokenPooling::first_tokens(n_components as usize)?
            }
            (Method::Mixture, Some(softmax)) => {
                weights.rows(MIXING_WEIGHTS)?;
                let shape = weights.shape(MIXING_WEIGHTS).unwrap_or_default();
                TokenPooling::mixture(weights.take(MIXING_WEIGHTS, shape)?, softmax)?
            }
            _ => {
                let expected = "`softmax` (true or false) of a mixture, and only there";
                return Err(wrong(&checkpoint, expected, "another combination"));
            }
        };
        let pooling = match weights.shape(PROJECTION) {
            None => pooling,
            Some(shape) => {
                let weight = weights.take(PROJECTION, shape)?;
                let bias = weights.take_optional(PROJECTION_BIAS, &[weight.rows()])?;
                pooling.with_projection(&weight, bias)?
            }
        };
        weights.finish()?;
        match stored.l2_norm {
            Some(eps) => pooling.with_l2_norm(eps),
            None => Ok(pooling),
        }
    }

    /// Writes it to a `.safetensors` file, which [`TokenPooling::open`] opens.
    ///
    /// # Errors
    /// If it cannot be written; a file that was there before is still there then.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let (method, softmax, name, tensor) = match self.method() {
            PoolingMethod::FirstTokens { n_components } => {
                (Method::FirstTokens, None, N_COMPONENTS, Tensor::trusted(vec![1], vec![*n_components as f32]))
            }
            PoolingMethod::Mixture { weights, softmax } => {
                (Method::Mixture, Some(*softmax), MIXING_WEIGHTS, weights.clone())
            }
        };
        let mut tensors = vec![(name.to_string(), tensor)];
        if let Some(layer) = self.projection() {
            tensors.push((PROJECTION.to_string(), transposed(&layer.weight)));
            tensors.extend(layer.bias.iter().map(|bias| (PROJECTION_BIAS.to_string(), bias.clone())));
        }
        let stored = Stored { format: FORMAT, method, softmax, l2_norm: self.l2_norm() };
        let metadata = BTreeMap::from([(TOKEN_POOLING_KEY.to_string(), serde_json::json!(stored).to_string())]);
        save_safetensors(path, &tensors, &metadata)
    }
}

fn stored(checkpoint: &Checkpoint) -> Result<Stored> {
    let Some(json) = checkpoint.metadata().and_then(|metadata| metadata.get(TOKEN_POOLING_KEY)) else {
        return Err(Error::Checkpoint {
            path: checkpoint.path().to_path_buf(),
            what: format!("no `{TOKEN_POOLING_KEY}` in its metadata: it is not a token pooling"),
            fix: "write one with `TokenPooling.save` of the Python package, or `TokenPooling::save`".to_string(),
        });
    };
    let stored: serde_json::Value =
        serde_json::from_str(json).map_err(|error| wrong(checkpoint, "JSON", &error.to_string()))?;
    let format = &stored["format"];
    if format.as_u64() != Some(FORMAT) {
        let expected = format!("format version {FORMAT}, all this program knows");
        return Err(wrong(checkpoint, &expected, &format.to_string()));
    }
    serde_json::from_value(stored)
        .map_err(|error| wrong(checkpoint, "what `TokenPooling::save` writes", &error.to_string()))
}

fn wrong(checkpoint: &Checkpoint, expected: &str, found: &str) -> Error {
    Error::Config {
        path: checkpoint.path().to_path_buf(),
        line: 0,
        key: TOKEN_POOLING_KEY.to_string(),
        expected: expected.to_string(),
        found: found.to_string(),
    }
}
