//! Transformers with learned positions and layer norms with weights: BERT4Rec (Sequential Recommendation with Bidirectional Encoder
//! Representations from Transformer, arXiv 1904.06690), where every place attends to all others and the item that a mask stands for is
//! predicted from the state at its place, and SASRec as other programs train it, where a place attends to those before it.

use crate::Result;
use crate::checkpoint::Weights;
use crate::config::{BlockNorm, FfnActivation, Padding, PositionOrder, TransformerConfig};
use crate::model::{Tap, rows_of, torch_linear, transposed};
use crate::ops::{Activation, AttentionMask, AttentionShape, DropoutSite, LayerNorm, Linear, Ops, Rows};
use crate::sequence::SequenceBatch;
use crate::tensor::Tensor;

/// A transformer encoder.
#[derive(Clone, Debug)]
pub struct Transformer<T> {
    /// What is multiplied with item embeddings.
    pub item_scale: f32,
    /// From where positions are counted.
    pub positions: PositionOrder,
    /// Of item and position embeddings together.
    pub embedding_norm: Option<LayerNorm<T>>,
    /// Where the layer norms of blocks are.
    pub block_norm: BlockNorm,
    /// Attention heads.
    pub heads: usize,
    /// What a place attends to.
    pub mask: AttentionMask,
    /// What stands before short histories.
    pub padding: Padding,
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
    /// Of what the attention reads, or of the sum with its result, see [`BlockNorm`].
    pub attention_norm: LayerNorm<T>,
    /// D -> ffn hidden width.
    pub ffn_in: Linear<T>,
    /// Ffn hidden width -> D.
    pub ffn_out: Linear<T>,
    /// Of what the feed-forward part reads, or of the sum with its result, see [`BlockNorm`].
    pub ffn_norm: LayerNorm<T>,
}

impl Transformer<Tensor> {
    pub(super) fn load(weights: &mut Weights, config: &TransformerConfig, dim: usize) -> Result<Transformer<Tensor>> {
        let norm_with = |weights: &mut Weights, name: &str, eps: f32| {
            Ok(LayerNorm {
                weight: weights.take(&format!("{name}.weight"), &[dim])?,
                bias: weights.take(&format!("{name}.bias"), &[dim])?,
                width: dim,
                eps,
                unbiased: config.layer_norm_unbiased,
            })
        };
        let norm = |weights: &mut Weights, name: &str| norm_with(weights, name, config.layer_norm_eps);
        let embedding_norm = config.embedding_norm.then(|| norm(weights, "embedding_norm")).transpose()?;
        let final_norm = || norm_with(weights, "final_norm", config.final_norm_eps);
        let final_norm = config.final_norm.then(final_norm).transpose()?;
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
        Ok(Transformer {
            item_scale: config.item_scale,
            positions: config.positions,
            embedding_norm,
            block_norm: config.block_norm,
            heads: config.num_heads,
            mask: if config.causal { AttentionMask::Causal } else { AttentionMask::Bidirectional },
            padding: config.padding,
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
            FfnActivation::Identity => Activation::Identity,
        }
    }
}

impl<T> Transformer<T> {
    pub(super) fn map<U>(&self, f: &mut impl FnMut(&T) -> U) -> Transformer<U> {
        let blocks = self.blocks.iter().map(|block| TransformerBlock {
            query: block.query.map(f),
            key_value: block.key_value.map(f),
            output: block.output.map(f),
            attention_norm: block.attention_norm.map(f),
            ffn_in: block.ffn_in.map(f),
            ffn_out: block.ffn_out.map(f),
            ffn_norm: block.ffn_norm.map(f),
        });
        Transformer {
            item_scale: self.item_scale,
            positions: self.positions,
            block_norm: self.block_norm,
            heads: self.heads,
            mask: self.mask,
            padding: self.padding,
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
                let from_last = ops.ints(&self.positions_from_last(batch));
                let of_rows = ops.gather(positions, dim, &from_last, rows.n_rows);
                // As if all rows were one sequence: row r has position r.
                let start = ops.ints(&vec![0; rows.n_rows]);
                let rows = Rows { n_rows: rows.n_rows, max_length: rows.n_rows, start };
                ops.embed(items, &of_rows, dim, self.item_scale, ids, &rows)
            }
        };
        normalised(ops, &x, self.embedding_norm.as_ref(), rows.n_rows)
    }

    /// (R): the position of each row, counted from the last one of its sequence; embedded padding has one of its own, the last.
    fn positions_from_last(&self, batch: &SequenceBatch) -> Vec<u32> {
        let mut positions = batch.rows_to_last();
        if self.padding == Padding::Embedded {
            // Sequences are filled up: as many rows each as there are positions of events.
            let of_padding = batch.max_length() as u32;
            let is_padding = batch.item_ids.iter().map(|&id| id == 0);
            positions.iter_mut().zip(is_padding).filter(|(_, is)| *is).for_each(|(position, _)| *position = of_padding);
        }
        positions
    }

    /// (R, D): 0 in the rows of padding that are zero before each block, 1 elsewhere.
    fn padding_mask<O: Ops<Floats = T>>(&self, ops: &mut O, batch: &SequenceBatch, dim: usize) -> Option<T> {
        let rows = batch.item_ids.iter().flat_map(|&id| std::iter::repeat_n(f32::from(id != 0), dim));
        let mask = || Tensor::trusted(vec![batch.n_rows(), dim], rows.collect());
        (self.padding == Padding::Zeros && batch.item_ids.contains(&0)).then(|| ops.floats(&mask()))
    }

    /// (R, D): what the last block makes of each row.
    pub(super) fn forward<O: Ops<Floats = T>>(
        &self,
        ops: &mut O,
        mut x: T,
        dim: usize,
        (batch, rows): (&SequenceBatch, &Rows<O::Ints>),
        tap: Tap<O>,
    ) -> T {
        let n = rows.n_rows;
        let shape = AttentionShape { width: dim, heads: self.heads, mask: self.mask };
        let padding_mask = self.padding_mask(ops, batch, dim);
        for (i, block) in self.blocks.iter().enumerate() {
            if let Some(mask) = &padding_mask {
                let both = ops.concat(&[(mask, dim), (&x, dim)], n);
                x = ops.glu(&both, n, dim, Activation::Identity);
            }
            // Which of the sums and inputs are normalised.
            let (attention_norm, ffn_norm) = (Some(&block.attention_norm), Some(&block.ffn_norm));
            let [of_query, of_key_value, of_sum, of_ffn_input, of_ffn_sum] = match self.block_norm {
                BlockNorm::Pre => [attention_norm, attention_norm, None, ffn_norm, None],
                BlockNorm::Post => [None, None, attention_norm, None, ffn_norm],
                BlockNorm::Query => [attention_norm, None, ffn_norm, None, None],
            };
            let normed = normalised(ops, &x, of_query, n);
            let query = ops.linear(&normed, n, &block.query, Activation::Identity, None);
            let read = if of_key_value.is_some() { &normed } else { &x };
            let key_value = ops.linear(read, n, &block.key_value, Activation::Identity, None);
            let site = DropoutSite::Attention { block: i };
            let attended = ops.softmax_attention(&query, &key_value, shape, rows, site);
            let site = DropoutSite::AttentionOutput { block: i };
            let residual = if self.block_norm == BlockNorm::Query { &normed } else { &x };
            let sum = ops.linear_with_dropout(&attended, n, &block.output, site, residual);
            x = normalised(ops, &sum, of_sum, n);
            let read = normalised(ops, &x, of_ffn_input, n);
            let hidden = ops.linear(&read, n, &block.ffn_in, self.activation, None);
            let hidden = ops.dropout(&hidden, n, block.ffn_in.n_out, DropoutSite::FeedForwardHidden { block: i });
            let site = DropoutSite::FeedForwardOutput { block: i };
            let sum = ops.linear_with_dropout(&hidden, n, &block.ffn_out, site, &x);
            x = normalised(ops, &sum, of_ffn_sum, n);
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
