//! Hyper-parameters of a model, what the weights alone do not say, and of its training.
//!
//! Read from the reference's `.gin` files ([`ModelConfig::from_gin`], [`TrainConfig::from_gin`]) or from the JSON metadata
//! that `rails-bench convert` stores inside a `.safetensors` file.

mod find;
mod gin;
mod json;
mod preset;
mod train;
mod validate;

pub use find::{config_beside, find_config, has_config};
pub use json::CONFIG_KEY;
pub use preset::{PRESETS, preset};
pub use train::{DropoutRates, EvaluationSchedule, ItemDropout, LossWeights, NegativeSampling, TrainConfig};

use serde::{Deserialize, Serialize};

/// Everything that is needed, beside the weights, to run a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Width D of the raw item and query embeddings.
    pub item_embedding_dim: usize,
    /// Longest history the model sees; older events are dropped.
    pub max_sequence_length: usize,
    /// Extra positions of the padded sequence after the history (the reference's `gr_output_length`).
    pub gr_output_length: usize,
    /// What is done to the encoder's output row.
    pub user_embedding_norm: EmbeddingNorm,
    /// Whether item embeddings are l2-normalised before a dot product.
    pub item_l2_norm: bool,
    /// Smallest norm that the l2 normalisation of items divides by.
    pub l2_norm_eps: f32,
    /// The sequence encoder.
    pub encoder: EncoderConfig,
    /// The similarity function.
    pub similarity: SimilarityConfig,
}

impl ModelConfig {
    /// Length N of the reference's padded sequences: `max_sequence_length + gr_output_length + 1`.
    /// HSTU divides its attention by it, and the position tables have this many rows.
    pub fn padded_length(&self) -> usize {
        self.max_sequence_length + self.gr_output_length + 1
    }

    /// One line for people: encoder, similarity and their sizes.
    pub fn summary(&self) -> String {
        let encoder = match &self.encoder {
            EncoderConfig::Hstu(hstu) => format!("HSTU, {} blocks, {} heads", hstu.num_blocks, hstu.num_heads),
            EncoderConfig::Sasrec(sasrec) => {
                format!("SASRec, {} blocks, {} heads", sasrec.num_blocks, sasrec.num_heads)
            }
        };
        let similarity = match &self.similarity {
            SimilarityConfig::DotProduct => "dot product".to_string(),
            SimilarityConfig::Mol(mol) => format!(
                "MoL {}x{}x{}",
                mol.query_dot_product_groups, mol.item_dot_product_groups, mol.dot_product_dimension
            ),
        };
        format!("{encoder}, D = {}, {similarity}", self.item_embedding_dim)
    }
}

/// Post-processing of the encoder's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EmbeddingNorm {
    /// Layer norm, eps 1e-6, without affine weights.
    LayerNorm,
    /// Division by the l2 norm, clamped from below at 1e-6 (the reference fixes it; `l2_norm_eps` is the items').
    L2Norm,
}

/// Which encoder, with its hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum EncoderConfig {
    /// Hierarchical Sequential Transduction Unit (arXiv 2402.17152).
    Hstu(HstuConfig),
    /// Self-Attentive Sequential Recommendation (arXiv 1808.09781).
    Sasrec(SasrecConfig),
}

/// Hyper-parameters of HSTU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HstuConfig {
    /// Number of layers.
    pub num_blocks: usize,
    /// Number of attention heads.
    pub num_heads: usize,
    /// Width of one head's query and key.
    pub dqk: usize,
    /// Width of one head's value and gate.
    pub dv: usize,
    /// Activation of the u, v, q, k projection.
    pub linear_activation: LinearActivation,
    /// Whether the output projection sees `[u, a, u * a]` instead of `u * a`.
    pub concat_ua: bool,
}

/// Activation of HSTU's input projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LinearActivation {
    /// x * sigmoid(x).
    Silu,
    /// Identity.
    None,
}

/// Hyper-parameters of SASRec.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SasrecConfig {
    /// Number of layers.
    pub num_blocks: usize,
    /// Number of attention heads.
    pub num_heads: usize,
    /// Hidden width of the feed-forward part.
    pub ffn_hidden_dim: usize,
    /// Activation of the feed-forward part.
    pub ffn_activation: FfnActivation,
}

/// Activation of SASRec's feed-forward part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FfnActivation {
    /// max(x, 0).
    Relu,
    /// The exact, erf-based GELU.
    Gelu,
}

/// Which similarity function, with its hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum SimilarityConfig {
    /// Plain inner product of query and item embedding.
    DotProduct,
    /// Mixture-of-Logits.
    Mol(MolConfig),
}

/// Hyper-parameters of Mixture-of-Logits (arXiv 2407.15462, section 2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MolConfig {
    /// P_Q: query component embeddings, those of the uid tables included.
    pub query_dot_product_groups: usize,
    /// P_X: item component embeddings.
    pub item_dot_product_groups: usize,
    /// D_P: width of one component embedding.
    pub dot_product_dimension: usize,
    /// Divisor of every component logit.
    pub temperature: f32,
    /// Whether component embeddings are l2-normalised.
    pub dot_product_l2_norm: bool,
    /// Smallest norm that the l2 normalisation divides by.
    pub eps: f32,
    /// Hidden layer of the query projection, if any.
    pub query_hidden: Option<GluConfig>,
    /// Hidden layer of the item projection, if any.
    pub item_hidden: Option<GluConfig>,
    /// Sizes of the user-id hash tables; each yields one query component embedding.
    pub uid_embedding_hash_sizes: Vec<usize>,
    /// How the three gate parts are combined.
    pub gating_combination: GatingCombination,
    /// Hidden width of the query-only gate part, if there is one.
    pub gating_query_hidden_dim: Option<usize>,
    /// Hidden width of the item-only gate part, if there is one.
    pub gating_item_hidden_dim: Option<usize>,
    /// Hidden width H of the cross gate part; `None`: a single linear layer.
    pub gating_qi_hidden_dim: Option<usize>,
}

impl MolConfig {
    /// L = P_Q * P_X: component logits of one (query, item) pair.
    pub fn n_logits(&self) -> usize {
        self.query_dot_product_groups * self.item_dot_product_groups
    }
}

/// A gated linear unit: `act(x W_1 + b_1) * (x W_2 + b_2)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GluConfig {
    /// Width of the result.
    pub hidden_dim: usize,
    /// Activation of the first half.
    pub nonlinearity: GluNonlinearity,
}

/// Activation inside a gated linear unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GluNonlinearity {
    /// The exact, erf-based GELU.
    Geglu,
    /// SiLU.
    Swiglu,
}

/// How the query (q), item (i) and cross (qi) gate parts become gating weights; softmax follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GatingCombination {
    /// `g * sigmoid(g)` with `g = q * i + qi`.
    GluSilu,
    /// `g * sigmoid(layer_norm(g))` with `g = q * i + qi`, eps 1e-5.
    GluSiluLn,
    /// The sum of the parts that exist.
    None,
}
