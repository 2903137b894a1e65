//! HSTU layers (Actions Speak Louder than Words, arXiv 2402.17152), as the reference trains them: pre-norm without
//! affine weights, silu attention divided by the padded length, relative position and time bias.

use crate::Result;
use crate::checkpoint::Weights;
use crate::config::{HstuConfig, LinearActivation};
use crate::model::{Tap, torch_linear};
use crate::ops::{Activation, DropoutSite, HstuShape, Linear, Ops, Rows};
use crate::sequence::{MAX_TIME_BUCKET, SequenceBatch};
use crate::tensor::Tensor;

const EPS: f32 = 1e-6;

/// All layers of an HSTU encoder.
#[derive(Clone, Debug)]
pub struct Hstu<T> {
    /// Shape that all layers share.
    pub shape: HstuShape,
    /// Activation of the u, v, q, k projection.
    pub activation: Activation,
    /// Whether the output projection sees `[u, a, u * a]`.
    pub concat_ua: bool,
    /// The layers, first one first.
    pub layers: Vec<HstuLayer<T>>,
}

/// One HSTU layer.
#[derive(Clone, Debug)]
pub struct HstuLayer<T> {
    /// D -> u, v, q, k; no bias.
    pub uvqk: Linear<T>,
    /// Gated attention -> D.
    pub output: Linear<T>,
    /// (2 N - 1): relative position bias; entry N - 1 + j - i.
    pub pos_w: T,
    /// (129): relative time bias.
    pub ts_w: T,
}

impl Hstu<Tensor> {
    pub(super) fn load(
        weights: &mut Weights,
        config: &HstuConfig,
        dim: usize,
        padded_length: usize,
    ) -> Result<Hstu<Tensor>> {
        let shape = HstuShape { heads: config.num_heads, dqk: config.dqk, dv: config.dv, padded_length };
        let gated = shape.attended() * if config.concat_ua { 3 } else { 1 };
        let layers = (0..config.num_blocks).map(|block| {
            let name = format!("_hstu._attention_layers.{block}");
            let uvqk = weights.take(&format!("{name}._uvqk"), &[dim, shape.uvqk()])?;
            let bias = format!("{name}._rel_attn_bias");
            Ok(HstuLayer {
                uvqk: Linear { weight: uvqk, bias: None, n_in: dim, n_out: shape.uvqk() },
                output: torch_linear(weights, &format!("{name}._o"), gated, dim, true)?,
                pos_w: weights.take(&format!("{bias}._pos_w"), &[2 * padded_length - 1])?,
                ts_w: weights.take(&format!("{bias}._ts_w"), &[MAX_TIME_BUCKET as usize + 1])?,
            })
        });
        let layers = layers.collect::<Result<_>>()?;
        let activation = match config.linear_activation {
            LinearActivation::Silu => Activation::Silu,
            LinearActivation::None => Activation::Identity,
        };
        Ok(Hstu { shape, activation, concat_ua: config.concat_ua, layers })
    }
}

impl<T> Hstu<T> {
    pub(super) fn map<U>(&self, f: &mut impl FnMut(&T) -> U) -> Hstu<U> {
        let layers = self.layers.iter().map(|layer| HstuLayer {
            uvqk: layer.uvqk.map(f),
            output: layer.output.map(f),
            pos_w: f(&layer.pos_w),
            ts_w: f(&layer.ts_w),
        });
        Hstu { shape: self.shape, activation: self.activation, concat_ua: self.concat_ua, layers: layers.collect() }
    }

    pub(super) fn forward<O: Ops<Floats = T>>(
        &self,
        ops: &mut O,
        mut x: T,
        dim: usize,
        batch: &SequenceBatch,
        rows: &Rows<O::Ints>,
        tap: Tap<O>,
    ) -> T {
        let buckets = ops.time_buckets(batch, rows);
        for (block, layer) in self.layers.iter().enumerate() {
            let normed = ops.layer_norm(&x, rows.n_rows, dim, EPS);
            let uvqk = ops.linear(&normed, rows.n_rows, &layer.uvqk, self.activation, None);
            let attended = ops.hstu_attention(&uvqk, self.shape, rows, &buckets, &layer.pos_w, &layer.ts_w);
            let gated = ops.hstu_gate(&uvqk, &attended, self.shape, rows.n_rows, EPS, self.concat_ua);
            let gated = ops.dropout(&gated, rows.n_rows, layer.output.n_in, DropoutSite::HstuLinear { block });
            x = ops.linear(&gated, rows.n_rows, &layer.output, Activation::Identity, Some(&x));
            tap(&format!("layer{block}.jagged_out"), &x, dim);
        }
        x
    }
}
