//! SASRec layers (Self-Attentive Sequential Recommendation, arXiv 1808.09781), as the reference trains them: the
//! query is normalised, keys and values are not, and the residual is the normalised query.

use crate::Result;
use crate::checkpoint::Weights;
use crate::config::SasrecConfig;
use crate::model::{Tap, rows_of, transposed};
use crate::ops::{Activation, AttentionMask, AttentionShape, DropoutSite, Linear, Ops, Rows};
use crate::tensor::Tensor;

const EPS: f32 = 1e-8;

/// All layers of a SASRec encoder.
#[derive(Clone, Debug)]
pub struct Sasrec<T> {
    /// Attention heads.
    pub heads: usize,
    /// Activation of the feed-forward part.
    pub activation: Activation,
    /// The layers, first one first.
    pub layers: Vec<SasrecLayer<T>>,
}

/// One SASRec layer.
#[derive(Clone, Debug)]
pub struct SasrecLayer<T> {
    /// D -> D: attention queries.
    pub query: Linear<T>,
    /// D -> 2 D: attention keys, then values.
    pub key_value: Linear<T>,
    /// D -> D: output projection of the attention.
    pub output: Linear<T>,
    /// D -> ffn hidden width.
    pub ffn_in: Linear<T>,
    /// Ffn hidden width -> D.
    pub ffn_out: Linear<T>,
}

impl Sasrec<Tensor> {
    pub(super) fn load(weights: &mut Weights, config: &SasrecConfig, dim: usize) -> Result<Sasrec<Tensor>> {
        let hidden = config.ffn_hidden_dim;
        let layers = (0..config.num_blocks).map(|block| {
            let attention = format!("attention_layers.{block}");
            let in_weight = weights.take(&format!("{attention}.in_proj_weight"), &[3 * dim, dim])?;
            let in_bias = weights.take(&format!("{attention}.in_proj_bias"), &[3 * dim])?;
            let in_rows = |from: usize, to: usize| Linear {
                weight: transposed(&rows_of(&in_weight, from, to)),
                bias: Some(rows_of(&in_bias, from, to)),
                n_in: dim,
                n_out: to - from,
            };
            let conv = format!("forward_layers.{block}._conv1d");
            Ok(SasrecLayer {
                query: in_rows(0, dim),
                key_value: in_rows(dim, 3 * dim),
                output: super::torch_linear(weights, &format!("{attention}.out_proj"), dim, dim, true)?,
                ffn_in: conv1d(weights, &format!("{conv}.0"), dim, hidden)?,
                ffn_out: conv1d(weights, &format!("{conv}.3"), hidden, dim)?,
            })
        });
        let layers = layers.collect::<Result<_>>()?;
        Ok(Sasrec { heads: config.num_heads, activation: config.ffn_activation.into(), layers })
    }
}

/// A `Conv1d` of kernel size 1: weight (n_out, n_in, 1), bias (n_out).
fn conv1d(weights: &mut Weights, name: &str, n_in: usize, n_out: usize) -> Result<Linear<Tensor>> {
    let weight = weights.take(&format!("{name}.weight"), &[n_out, n_in, 1])?;
    let bias = weights.take(&format!("{name}.bias"), &[n_out])?;
    Ok(Linear { weight: transposed(&weight), bias: Some(bias), n_in, n_out })
}

impl<T> Sasrec<T> {
    pub(super) fn map<U>(&self, f: &mut impl FnMut(&T) -> U) -> Sasrec<U> {
        let layers = self.layers.iter().map(|layer| SasrecLayer {
            query: layer.query.map(f),
            key_value: layer.key_value.map(f),
            output: layer.output.map(f),
            ffn_in: layer.ffn_in.map(f),
            ffn_out: layer.ffn_out.map(f),
        });
        Sasrec { heads: self.heads, activation: self.activation, layers: layers.collect() }
    }

    pub(super) fn forward<O: Ops<Floats = T>>(
        &self,
        ops: &mut O,
        mut x: T,
        dim: usize,
        rows: &Rows<O::Ints>,
        tap: Tap<O>,
    ) -> T {
        let shape = AttentionShape { width: dim, heads: self.heads, mask: AttentionMask::Causal };
        for (block, layer) in self.layers.iter().enumerate() {
            let normed = ops.layer_norm(&x, rows.n_rows, dim, EPS);
            let query = ops.linear(&normed, rows.n_rows, &layer.query, Activation::Identity, None);
            let key_value = ops.linear(&x, rows.n_rows, &layer.key_value, Activation::Identity, None);
            let site = DropoutSite::Attention { block };
            let attended = ops.softmax_attention(&query, &key_value, shape, rows, site);
            let attended = ops.linear(&attended, rows.n_rows, &layer.output, Activation::Identity, Some(&normed));
            tap(&format!("layer{block}.attention_residual"), &attended, dim);
            let y = ops.layer_norm(&attended, rows.n_rows, dim, EPS);
            let hidden = ops.linear(&y, rows.n_rows, &layer.ffn_in, self.activation, None);
            let hidden =
                ops.dropout(&hidden, rows.n_rows, layer.ffn_in.n_out, DropoutSite::FeedForwardHidden { block });
            let out = DropoutSite::FeedForwardOutput { block };
            x = ops.linear_with_dropout(&hidden, rows.n_rows, &layer.ffn_out, out, &y);
            tap(&format!("layer{block}.ffn_out"), &x, dim);
        }
        x
    }
}
