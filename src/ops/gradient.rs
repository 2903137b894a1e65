//! The operations of [`Ops`] backwards: what a backend must be able to do so that a model can be trained on it.
//!
//! An operation y = f(x) is differentiated by a method that gets the inputs of f, the gradient of y (`dy`), and for each input the
//! gradient that it has so far: `None` while there is none, an array of the input's shape otherwise. The method adds its part. Sums
//! over rows have an order that depends on shapes alone.

use super::{Activation, AttentionShape, HstuShape, LayerNorm, Linear, Ops, Rows};
use crate::random::Dropout;

/// What [`Ops::embed`] has read.
#[derive(Debug)]
pub struct EmbedInputs<'a, F, I> {
    /// (any, width)
    pub items: &'a F,
    /// (any, width)
    pub positions: &'a F,
    /// Width of both.
    pub width: usize,
    /// Factor of items.
    pub scale: f32,
    /// (rows): rows of `items`.
    pub ids: &'a I,
    /// The sequences.
    pub rows: &'a Rows<I>,
}

/// What [`Ops::linear`] has read.
#[derive(Debug)]
pub struct LinearInputs<'a, F> {
    /// (rows, n_in)
    pub x: &'a F,
    /// Rows of x.
    pub rows: usize,
    /// The layer.
    pub layer: &'a Linear<F>,
    /// The activation.
    pub activation: Activation,
    /// (rows, n_out): what the activation was applied to; not looked at for [`Activation::Identity`].
    pub before_activation: &'a F,
}

/// Gradients of what [`Ops::linear`] reads, but for the residual, whose gradient is that of the result.
#[derive(Debug)]
pub struct LinearGradients<'a, F> {
    /// (rows, n_in)
    pub x: &'a mut Option<F>,
    /// (n_in, n_out)
    pub weight: &'a mut Option<F>,
    /// (n_out); not looked at if the layer has no bias.
    pub bias: &'a mut Option<F>,
}

/// What [`Ops::hstu_attention`] has read.
#[derive(Debug)]
pub struct HstuAttentionInputs<'a, F, I> {
    /// (rows, 2 heads (dv + dqk))
    pub uvqk: &'a F,
    /// Its shape.
    pub shape: HstuShape,
    /// The sequences.
    pub rows: &'a Rows<I>,
    /// Result of [`Ops::time_buckets`].
    pub buckets: &'a I,
    /// (2 N - 1)
    pub pos_w: &'a F,
    /// (129)
    pub ts_w: &'a F,
}

/// What [`Ops::hstu_gate`] has read.
#[derive(Debug)]
pub struct HstuGateInputs<'a, F> {
    /// (rows, 2 heads (dv + dqk))
    pub uvqk: &'a F,
    /// (rows, heads * dv)
    pub attended: &'a F,
    /// Their shape.
    pub shape: HstuShape,
    /// Added to the variance of the layer norm.
    pub eps: f32,
    /// Whether the result is `[u, a, u * a]`.
    pub concat_ua: bool,
}

/// What [`Ops::softmax_attention`] has read.
#[derive(Debug)]
pub struct SoftmaxAttentionInputs<'a, F, I> {
    /// (rows, width)
    pub q: &'a F,
    /// (rows, 2 * width)
    pub kv: &'a F,
    /// Width, heads and mask.
    pub shape: AttentionShape,
    /// The sequences.
    pub rows: &'a Rows<I>,
    /// Dropout of the probabilities. The element of head h of row r for row j of its sequence is
    /// `(r * heads + h) * max_length' + j`, with max_length' the next multiple of 64 of [`Rows::max_length`].
    pub dropout: Option<Dropout>,
}

/// What [`Ops::gru`] has read, and its result.
#[derive(Debug)]
pub struct GruInputs<'a, F> {
    /// (rows, 3 hidden)
    pub x: &'a F,
    /// Hidden -> 3 hidden.
    pub recurrent: &'a Linear<F>,
    /// (B + 1): first row of each sequence, and R at the end.
    pub offsets: &'a [u32],
    /// (rows, hidden)
    pub states: &'a F,
}

/// Gradients of the operations of [`Ops`], and what else the forward passes of training need. See the module documentation.
pub trait GradientOps: Ops {
    /// Adds an array to a gradient of the same shape.
    fn add(&mut self, part: Self::Floats, gradient: &mut Option<Self::Floats>);

    /// x with dropout, which is also the gradient of dropout: element i is the draw `i / sharing`, and `sharing` elements in a row
    /// stay or go together.
    fn drop_out(&mut self, x: &Self::Floats, dropout: Dropout, sharing: usize) -> Self::Floats;

    /// [`Ops::linear`] together with what its activation was applied to, which may be the result itself if that is the same.
    fn linear_before_activation(
        &mut self,
        x: &Self::Floats,
        rows: usize,
        layer: &Linear<Self::Floats>,
        activation: Activation,
        residual: Option<&Self::Floats>,
    ) -> (Self::Floats, Self::Floats);

    /// [`Ops::softmax_attention`] with dropout.
    fn softmax_attention_with(&mut self, inputs: &SoftmaxAttentionInputs<Self::Floats, Self::Ints>) -> Self::Floats;

    /// Of [`Ops::gather`], to the table.
    fn gather_gradient(
        &mut self,
        table: &Self::Floats,
        width: usize,
        indices: &Self::Ints,
        dy: &Self::Floats,
        table_gradient: &mut Option<Self::Floats>,
    );

    /// Of [`Ops::embed`], to items and positions.
    fn embed_gradient(
        &mut self,
        inputs: &EmbedInputs<Self::Floats, Self::Ints>,
        dy: &Self::Floats,
        gradients: [&mut Option<Self::Floats>; 2],
    );

    /// Of [`Ops::linear`].
    fn linear_gradient(
        &mut self,
        inputs: &LinearInputs<Self::Floats>,
        dy: &Self::Floats,
        gradients: LinearGradients<Self::Floats>,
    );

    /// Of [`Ops::layer_norm`].
    fn layer_norm_gradient(
        &mut self,
        x: &Self::Floats,
        width: usize,
        eps: f32,
        dy: &Self::Floats,
        gradient: &mut Option<Self::Floats>,
    );

    /// Of [`Ops::affine_layer_norm`], to x, weight and bias.
    fn affine_layer_norm_gradient(
        &mut self,
        x: &Self::Floats,
        norm: &LayerNorm<Self::Floats>,
        dy: &Self::Floats,
        gradients: [&mut Option<Self::Floats>; 3],
    );

    /// Of [`Ops::l2_norm`].
    fn l2_norm_gradient(
        &mut self,
        x: &Self::Floats,
        width: usize,
        eps: f32,
        dy: &Self::Floats,
        gradient: &mut Option<Self::Floats>,
    );

    /// Of [`Ops::glu`].
    fn glu_gradient(
        &mut self,
        x: &Self::Floats,
        hidden: usize,
        activation: Activation,
        dy: &Self::Floats,
        gradient: &mut Option<Self::Floats>,
    );

    /// Of [`Ops::concat`], to the part of this width that begins at column `first` of the result, which is `total` columns wide.
    fn concat_gradient(
        &mut self,
        dy: &Self::Floats,
        total: usize,
        first: usize,
        width: usize,
        gradient: &mut Option<Self::Floats>,
    );

    /// Of [`Ops::hstu_attention`], to uvqk, `pos_w` and `ts_w`.
    fn hstu_attention_gradient(
        &mut self,
        inputs: &HstuAttentionInputs<Self::Floats, Self::Ints>,
        dy: &Self::Floats,
        gradients: [&mut Option<Self::Floats>; 3],
    );

    /// Of [`Ops::hstu_gate`], to uvqk and to what was attended.
    fn hstu_gate_gradient(
        &mut self,
        inputs: &HstuGateInputs<Self::Floats>,
        dy: &Self::Floats,
        gradients: [&mut Option<Self::Floats>; 2],
    );

    /// Of [`Ops::softmax_attention`], to q and kv.
    fn softmax_attention_gradient(
        &mut self,
        inputs: &SoftmaxAttentionInputs<Self::Floats, Self::Ints>,
        dy: &Self::Floats,
        gradients: [&mut Option<Self::Floats>; 2],
    );

    /// Of [`Ops::gru`], to x and the recurrent layer.
    fn gru_gradient(
        &mut self,
        inputs: &GruInputs<Self::Floats>,
        dy: &Self::Floats,
        gradients: LinearGradients<Self::Floats>,
    );
}
