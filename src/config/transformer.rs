//! Hyper-parameters of transformers, in the variants in which other programs train SASRec and BERT4Rec.

use serde::{Deserialize, Serialize};

use super::{Bert4recConfig, FfnActivation, PositionOrder};
use crate::error::Parameter;
use crate::names::names;

/// Hyper-parameters of a transformer over the events of a history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransformerConfig {
    /// Number of layers.
    pub num_blocks: usize,
    /// Number of attention heads.
    pub num_heads: usize,
    /// Hidden width of the feed-forward part.
    pub ffn_hidden_dim: usize,
    /// Activation of the feed-forward part.
    pub ffn_activation: FfnActivation,
    /// Where the layer norms of a block are.
    pub block_norm: BlockNorm,
    /// Whether an event attends to itself and what is before it only (SASRec), or to all (BERT4Rec).
    pub causal: bool,
    /// Whether a mask token follows the events, at whose place the query embedding is made. Its embedding is the last row of the item
    /// table.
    pub mask_token: bool,
    /// Whether the first event of a history that is not truncated is left out, as RecBole's BERT4Rec does.
    pub drops_first_event: bool,
    /// What stands before a history that is shorter than `max_sequence_length`.
    pub padding: Padding,
    /// Whether the sum of item and position embeddings is normalised.
    pub embedding_norm: bool,
    /// Whether what the last block yields is normalised.
    pub final_norm: bool,
    /// Eps of the layer norms of blocks, of embeddings and of the output head.
    pub layer_norm_eps: f32,
    /// Eps of the layer norm after the last block.
    pub final_norm_eps: f32,
    /// Whether layer norms divide by the unbiased standard deviation plus eps.
    pub layer_norm_unbiased: bool,
    /// What is multiplied with item embeddings before positions are added.
    pub item_scale: f32,
    /// From where positions are counted.
    pub positions: PositionOrder,
    /// Whether a linear layer, an exact GELU and a layer norm make the query embedding of the last state.
    pub output_head: bool,
}

/// Where the layer norms of a transformer block are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BlockNorm {
    /// Each part normalises what it reads.
    Pre,
    /// The sum of what a part reads and of its result is normalised.
    Post,
    /// As in SASRec's own program: the queries of the attention are normalised, keys and values are not, and what is normalised is
    /// added to the result of each part.
    Query,
}

names!(BlockNorm, Parameter::Named("block-norm"), { Pre: "pre", Post: "post", Query: "query" });

/// What stands before a history that is shorter than `max_sequence_length`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Padding {
    /// Nothing: padding is masked, or behind the history, where no event attends to it.
    None,
    /// Rows that are zero before each block. Events attend to them.
    Zeros,
    /// Row 0 of the item table with the position behind those of all events. Events attend to them.
    Embedded,
}

impl From<&Bert4recConfig> for TransformerConfig {
    fn from(bert: &Bert4recConfig) -> TransformerConfig {
        TransformerConfig {
            num_blocks: bert.num_blocks,
            num_heads: bert.num_heads,
            ffn_hidden_dim: bert.ffn_hidden_dim,
            ffn_activation: bert.ffn_activation,
            block_norm: if bert.norm_first { BlockNorm::Pre } else { BlockNorm::Post },
            causal: false,
            mask_token: true,
            drops_first_event: false,
            padding: Padding::None,
            embedding_norm: bert.embedding_norm,
            final_norm: bert.final_norm,
            layer_norm_eps: bert.layer_norm_eps,
            final_norm_eps: bert.layer_norm_eps,
            layer_norm_unbiased: bert.layer_norm_unbiased,
            item_scale: bert.item_scale,
            positions: bert.positions,
            output_head: bert.output_head,
        }
    }
}
