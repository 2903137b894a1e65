//! Hyper-parameters of a model, what the weights alone do not say, and of its training.
//!
//! Read from the reference's `.gin` files ([`ModelConfig::from_gin`], [`TrainConfig::from_gin`]) or from the JSON metadata
//! that `rails-bench convert` stores inside a `.safetensors` file.

mod find;
mod gin;
mod json;
mod preset;
mod train;
mod transformer;
mod validate;

pub use find::{config_beside, find_config, has_config};
pub use json::CONFIG_KEY;
pub use preset::{PRESETS, preset};
pub use train::{DropoutRates, EvaluationSchedule, LossKind, LossWeights, NegativeSampling, TrainConfig};
pub use transformer::{BlockNorm, Padding, TransformerConfig};

use serde::{Deserialize, Serialize};

use crate::error::Parameter;
use crate::names::names;

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
    /// What query embeddings are compared with, beside the items that the encoder reads.
    #[serde(default, skip_serializing_if = "OutputConfig::is_tied")]
    pub output: OutputConfig,
}

impl ModelConfig {
    /// Length N of the reference's padded sequences: `max_sequence_length + gr_output_length + 1`.
    /// HSTU divides its attention by it, and the position tables have this many rows.
    pub fn padded_length(&self) -> usize {
        self.max_sequence_length + self.gr_output_length + 1
    }

    /// Width of query embeddings and of the item embeddings that they are compared with: `item_embedding_dim`, and one more if items
    /// have a bias, which is then the last number of an item and is multiplied by 1.
    pub fn query_embedding_dim(&self) -> usize {
        self.item_embedding_dim + usize::from(self.output.bias)
    }

    /// One line for people: encoder, similarity and their sizes.
    pub fn summary(&self) -> String {
        let encoder = match &self.encoder {
            EncoderConfig::Hstu(hstu) => format!("HSTU, {} blocks, {} heads", hstu.num_blocks, hstu.num_heads),
            EncoderConfig::Sasrec(sasrec) => {
                format!("SASRec, {} blocks, {} heads", sasrec.num_blocks, sasrec.num_heads)
            }
            EncoderConfig::Gru4rec(gru) => format!("GRU4Rec, {} layers of {}", gru.num_layers, gru.hidden_dim),
            EncoderConfig::Bert4rec(bert) => format!("BERT4Rec, {} blocks, {} heads", bert.num_blocks, bert.num_heads),
            EncoderConfig::Transformer(transformer) => {
                let kind = if transformer.causal { "causal" } else { "bidirectional" };
                format!("{kind} transformer, {} blocks, {} heads", transformer.num_blocks, transformer.num_heads)
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
    /// Nothing.
    None,
}

/// What query embeddings are compared with, where it is not only the item embeddings that the encoder reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputConfig {
    /// Whether it is a table of its own (untied weights).
    pub separate: bool,
    /// Whether each item has a bias, which is added to its inner product.
    pub bias: bool,
}

impl OutputConfig {
    /// Whether it is the items that the encoder reads, and nothing else.
    pub fn is_tied(&self) -> bool {
        *self == OutputConfig::default()
    }
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
    /// Recurrent networks for sessions (arXiv 1511.06939, 1606.08117).
    Gru4rec(Gru4recConfig),
    /// Bidirectional transformer with a mask where the next item would be (arXiv 1904.06690).
    Bert4rec(Bert4recConfig),
    /// SASRec and BERT4Rec as other programs train them.
    Transformer(TransformerConfig),
}

impl EncoderConfig {
    /// Whether a mask token follows each history: its embedding is the last row of the item table, and the query embedding is
    /// made at its place.
    pub fn appends_mask(&self) -> bool {
        match self {
            EncoderConfig::Bert4rec(_) => true,
            EncoderConfig::Transformer(transformer) => transformer.mask_token,
            _ => false,
        }
    }

    /// Whether histories shorter than the longest are filled up from the left with item 0.
    pub fn pads_histories(&self) -> bool {
        matches!(self, EncoderConfig::Transformer(transformer) if transformer.padding != Padding::None)
    }

    /// Whether the first event of a history that is not truncated is left out.
    pub fn drops_first_event(&self) -> bool {
        matches!(self, EncoderConfig::Transformer(transformer) if transformer.drops_first_event)
    }
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
    /// GELU by tanh.
    GeluTanh,
    /// x * sigmoid(x).
    Silu,
    /// x.
    Identity,
}

names!(FfnActivation, Parameter::Named("activation"), {
    Relu: "relu",
    Gelu: "gelu",
    GeluTanh: "gelu_tanh",
    Silu: "silu",
    Identity: "identity",
});

/// Hyper-parameters of GRU4Rec.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gru4recConfig {
    /// Number of layers.
    pub num_layers: usize,
    /// Width of a layer's state.
    pub hidden_dim: usize,
    /// Whether the gates have biases, as `bias` of torch's `nn.GRU`.
    pub bias: bool,
    /// Whether a linear layer makes the query embedding of the last state. Without it the two have the same width.
    pub dense: bool,
}

/// Hyper-parameters of BERT4Rec.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bert4recConfig {
    /// Number of layers.
    pub num_blocks: usize,
    /// Number of attention heads.
    pub num_heads: usize,
    /// Hidden width of the feed-forward part.
    pub ffn_hidden_dim: usize,
    /// Activation of the feed-forward part.
    pub ffn_activation: FfnActivation,
    /// Whether each part of a block normalises what it reads (pre-norm) instead of the sum of that and its result (post-norm).
    pub norm_first: bool,
    /// Whether the sum of item and position embeddings is normalised.
    pub embedding_norm: bool,
    /// Whether what the last block yields is normalised.
    pub final_norm: bool,
    /// Eps of all layer norms.
    pub layer_norm_eps: f32,
    /// Whether layer norms divide by the unbiased standard deviation plus eps, as BERT4Rec-VAE-Pytorch does.
    pub layer_norm_unbiased: bool,
    /// What is multiplied with item embeddings before positions are added.
    pub item_scale: f32,
    /// From where positions are counted.
    pub positions: PositionOrder,
    /// Whether a linear layer, an exact GELU and a layer norm make the query embedding of the state of the mask.
    pub output_head: bool,
}

/// From where the positions of a sequence are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PositionOrder {
    /// Position 0 is the first event, as where padding is on the right.
    FromFirst,
    /// Position 0 is the last place.
    FromLast,
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
    /// Whether embeddings of queries and items are their component embeddings, side by side: there are no projections then, and
    /// the gate sees the logits only.
    #[serde(default, skip_serializing_if = "is_false")]
    pub given_components: bool,
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

    /// A similarity of component embeddings that are given as they are, P_Q = `n_query` of a query and P_X = `n_item` of an item,
    /// `width` (D_P) wide each. They are not l2-normalised, the temperature is 1, and the gating weights are the softmax of what
    /// the gate makes of the logits.
    pub fn of_components(n_query: usize, n_item: usize, width: usize) -> MolConfig {
        MolConfig {
            query_dot_product_groups: n_query,
            item_dot_product_groups: n_item,
            dot_product_dimension: width,
            given_components: true,
            temperature: 1.0,
            dot_product_l2_norm: false,
            eps: 1e-6,
            query_hidden: None,
            item_hidden: None,
            uid_embedding_hash_sizes: Vec::new(),
            gating_combination: GatingCombination::None,
            gating_query_hidden_dim: None,
            gating_item_hidden_dim: None,
            gating_qi_hidden_dim: None,
        }
    }

    /// (P_Q - uid tables) * D_P: numbers of the components of a query that are not those of its user.
    pub(crate) fn query_width(&self) -> usize {
        (self.query_dot_product_groups - self.uid_embedding_hash_sizes.len()) * self.dot_product_dimension
    }

    /// Width of query embeddings where those that are projected have the width `dim`.
    pub(crate) fn query_dim(&self, dim: usize) -> usize {
        if self.given_components { self.query_width() } else { dim }
    }

    /// P_X * D_P: numbers of the components of an item.
    pub(crate) fn item_width(&self) -> usize {
        self.item_dot_product_groups * self.dot_product_dimension
    }
}

fn is_false(value: &bool) -> bool {
    !value
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
