//! BERT4Rec (Sequential Recommendation with Bidirectional Encoder Representations from Transformer, arXiv 1904.06690): every place
//! attends to all others, and the item that a mask stands for is predicted from the state at its place.

use crate::Result;
use crate::checkpoint::Weights;
use crate::config::{Bert4recConfig, FfnActivation, PositionOrder};
use crate::model::{Tap, rows_of, torch_linear, transposed};
use crate::ops::{Activation, AttentionMask, AttentionShape, DropoutSite, LayerNorm, Linear, Ops, Rows};
use crate::sequence::SequenceBatch;
use crate::tensor::Tensor;

/// A BERT4Rec encoder.
#[derive(Clone, Debug)]
pub struct Bert4rec<T> {
    /// What is multiplied with item embeddings.
    pub item_scale: f32,
    /// From where positions are counted.
    pub positions: PositionOrder,
    /// Of item and position embeddings together.
    pub embedding_norm: Option<LayerNorm<T>>,
    /// Whether blocks are pre-norm.
    pub norm_first: bool,
    /// Attention heads.
    pub heads: usize,
    /// Activation of the feed-forward part.
    pub activation: Activation,
    /// The blocks, first one first.
    pub blocks: Vec<TransformerBlock<T>>,
    /// Of what the last block yields.
    pub final_norm: Option<LayerNorm<T>>,
    /// D -> D with a GELU, and a layer norm.
    pub head: Option<(Linear<T>, LayerNorm<T>)>,
}

/// A transformer block.
#[derive(Clone, Debug)]
pub struct TransformerBlock<T> {
    /// D -> D: attention queries.
    pub query: Linear<T>,
    /// D -> 2 D: attention keys, then values.
    pub key_value: Linear<T>,
    /// D -> D: output projection of the attention.
    pub output: Linear<T>,
    /// Of what the attention reads, or of the sum with its result.
    pub attention_norm: LayerNorm<T>,
    /// D -> ffn hidden width.
    pub ffn_in: Linear<T>,
    /// Ffn hidden width -> D.
    pub ffn_out: Linear<T>,
    /// Of what the feed-forward part reads, or of the sum with its result.
    pub ffn_norm: LayerNorm<T>,
}

impl Bert4rec<Tensor> {
    pub(super) fn load(weights: &mut Weights, config: &Bert4recConfig, dim: usize) -> Result<Bert4rec<Tensor>> {
        let norm = |weights: &mut Weights, name: &str| {
            Ok(LayerNorm {
                weight: weights.take(&format!("{name}.weight"), &[dim])?,
                bias: weights.take(&format!("{name}.bias"), &[dim])?,
                width: dim,
                eps: config.layer_norm_eps,
                unbiased: config.layer_norm_unbiased,
            })
        };
        let mut optional_norm = |has: bool, name: &str| has.then(|| norm(weights, name)).transpose();
        let embedding_norm = optional_norm(config.embedding_norm, "embedding_norm")?;
        let final_norm = optional_norm(config.final_norm, "final_norm")?;
        let blocks = (0..config.num_blocks).map(|block| {
            let name = format!("blocks.{block}");
            let in_weight = weights.take(&format!("{name}.attention.in_proj_weight"), &[3 * dim, dim])?;
            let in_bias = weights.take(&format!("{name}.attention.in_proj_bias"), &[3 * dim])?;
            let in_rows = |from: usize, to: usize| Linear {
                weight: transposed(&rows_of(&in_weight, from, to)),
                bias: Some(rows_of(&in_bias, from, to)),
                n_in: dim,
                n_out: to - from,
            };
            Ok(TransformerBlock {
                query: in_rows(0, dim),
                key_value: in_rows(dim, 3 * dim),
                output: torch_linear(weights, &format!("{name}.attention.out_proj"), dim, dim, true)?,
                attention_norm: norm(weights, &format!("{name}.attention_norm"))?,
                ffn_in: torch_linear(weights, &format!("{name}.ffn.0"), dim, config.ffn_hidden_dim, true)?,
                ffn_out: torch_linear(weights, &format!("{name}.ffn.1"), config.ffn_hidden_dim, dim, true)?,
                ffn_norm: norm(weights, &format!("{name}.ffn_norm"))?,
            })
        });
        let blocks = blocks.collect::<Result<_>>()?;
        let head = match config.output_head {
            true => Some((torch_linear(weights, "head.dense", dim, dim, true)?, norm(weights, "head.norm")?)),
            false => None,
        };
        Ok(Bert4rec {
            item_scale: config.item_scale,
            positions: config.positions,
            embedding_norm,
            norm_first: config.norm_first,
            heads: config.num_heads,
            activation: config.ffn_activation.into(),
            blocks,
            final_norm,
            head,
        })
    }
}

impl From<FfnActivation> for Activation {
    fn from(activation: FfnActivation) -> Activation {
        match activation {
            FfnActivation::Relu => Activation::Relu,
            FfnActivation::Gelu => Activation::Gelu,
            FfnActivation::GeluTanh => Activation::GeluTanh,
            FfnActivation::Silu => Activation::Silu,
        }
    }
}

impl<T> Bert4rec<T> {
    pub(super) fn map<U>(&self, f: &mut impl FnMut(&T) -> U) -> Bert4rec<U> {
        let blocks = self.blocks.iter().map(|block| TransformerBlock {
            query: block.query.map(f),
            key_value: block.key_value.map(f),
            output: block.output.map(f),
            attention_norm: block.attention_norm.map(f),
            ffn_in: block.ffn_in.map(f),
            ffn_out: block.ffn_out.map(f),
            ffn_norm: block.ffn_norm.map(f),
        });
        Bert4rec {
            item_scale: self.item_scale,
            positions: self.positions,
            norm_first: self.norm_first,
            heads: self.heads,
            activation: self.activation,
            blocks: blocks.collect(),
            embedding_norm: self.embedding_norm.as_ref().map(|norm| norm.map(f)),
            final_norm: self.final_norm.as_ref().map(|norm| norm.map(f)),
            head: self.head.as_ref().map(|(dense, norm)| (dense.map(f), norm.map(f))),
        }
    }

    /// (R, D): item embeddings, rows `ids` of `items`, with the embeddings of their positions, rows of `positions`.
    pub(super) fn embed<O: Ops<Floats = T>>(
        &self,
        ops: &mut O,
        (items, positions, dim): (&T, &T, usize),
        ids: &O::Ints,
        batch: &SequenceBatch,
        rows: &Rows<O::Ints>,
    ) -> T {
        let x = match self.positions {
            PositionOrder::FromFirst => ops.embed(items, positions, dim, self.item_scale, ids, rows),
            PositionOrder::FromLast => {
                let from_last = ops.ints(&batch.rows_to_last());
                let of_rows = ops.gather(positions, dim, &from_last, rows.n_rows);
                // As if all rows were one sequence: row r has position r.
                let start = ops.ints(&vec![0; rows.n_rows]);
                let rows = Rows { n_rows: rows.n_rows, max_length: rows.n_rows, start };
                ops.embed(items, &of_rows, dim, self.item_scale, ids, &rows)
            }
        };
        normalised(ops, &x, self.embedding_norm.as_ref(), rows.n_rows)
    }

    /// (R, D): what the last block makes of each row.
    pub(super) fn forward<O: Ops<Floats = T>>(
        &self,
        ops: &mut O,
        mut x: T,
        dim: usize,
        rows: &Rows<O::Ints>,
        tap: Tap<O>,
    ) -> T {
        let n = rows.n_rows;
        let shape = AttentionShape { width: dim, heads: self.heads, mask: AttentionMask::Bidirectional };
        for (i, block) in self.blocks.iter().enumerate() {
            // Pre-norm parts read what is normalised, post-norm parts yield it.
            let (before, after) = match self.norm_first {
                true => ((Some(&block.attention_norm), Some(&block.ffn_norm)), (None, None)),
                false => ((None, None), (Some(&block.attention_norm), Some(&block.ffn_norm))),
            };
            let read = normalised(ops, &x, before.0, n);
            let query = ops.linear(&read, n, &block.query, Activation::Identity, None);
            let key_value = ops.linear(&read, n, &block.key_value, Activation::Identity, None);
            let site = DropoutSite::Attention { block: i };
            let attended = ops.softmax_attention(&query, &key_value, shape, rows, site);
            let site = DropoutSite::AttentionOutput { block: i };
            let sum = ops.linear_with_dropout(&attended, n, &block.output, site, &x);
            x = normalised(ops, &sum, after.0, n);
            let read = normalised(ops, &x, before.1, n);
            let hidden = ops.linear(&read, n, &block.ffn_in, self.activation, None);
            let hidden = ops.dropout(&hidden, n, block.ffn_in.n_out, DropoutSite::FeedForwardHidden { block: i });
            let site = DropoutSite::FeedForwardOutput { block: i };
            let sum = ops.linear_with_dropout(&hidden, n, &block.ffn_out, site, &x);
            x = normalised(ops, &sum, after.1, n);
            tap(&format!("layer{i}.block_out"), &x, dim);
        }
        x
    }

    /// (rows, D): query embeddings of states.
    pub(super) fn output<O: Ops<Floats = T>>(&self, ops: &mut O, states: T, rows: usize) -> T {
        let states = normalised(ops, &states, self.final_norm.as_ref(), rows);
        match &self.head {
            Some((dense, norm)) => {
                let hidden = ops.linear(&states, rows, dense, Activation::Gelu, None);
                ops.affine_layer_norm(&hidden, rows, norm)
            }
            None => states,
        }
    }
}

fn normalised<O: Ops>(ops: &mut O, x: &O::Floats, norm: Option<&LayerNorm<O::Floats>>, rows: usize) -> O::Floats {
    match norm {
        Some(norm) => ops.affine_layer_norm(x, rows, norm),
        None => x.clone(),
    }
}
