//! The few array operations that encoders and projections are made of.
//!
//! A model is described once, as a sequence of these operations over `O: Ops`; each backend implements
//! them ([`crate::backend::cpu`] on slices, [`crate::backend::gpu`] as WGSL dispatches). Shapes are
//! row-major; `rows` always counts the rows of the first operand. Callers pass shapes that were checked
//! when the model was loaded, so operations do not fail one by one: a device reports its first error when
//! results are read.

mod dropout;
mod gradient;

pub use dropout::DropoutSite;
pub use gradient::{
    EmbedInputs, GradientOps, GruInputs, HstuAttentionInputs, HstuGateInputs, LinearGradients, LinearInputs,
    SoftmaxAttentionInputs,
};

use crate::Result;
use crate::sequence::SequenceBatch;
use crate::tensor::Tensor;

/// Element-wise function applied after a linear layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x
    Identity,
    /// x * sigmoid(x)
    Silu,
    /// max(x, 0)
    Relu,
    /// x * Phi(x), with the exact Gaussian distribution function
    Gelu,
    /// The same with tanh in the place of the error function: `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`
    GeluTanh,
}

/// A fully connected layer `y = x W + b`.
#[derive(Clone, Debug)]
pub struct Linear<T> {
    /// W: (n_in, n_out).
    pub weight: T,
    /// b: (n_out), if there is one.
    pub bias: Option<T>,
    /// Width of the input.
    pub n_in: usize,
    /// Width of the output.
    pub n_out: usize,
}

impl<T> Linear<T> {
    /// The same layer with its arrays elsewhere, e.g. uploaded to a device.
    pub fn map<U>(&self, f: &mut impl FnMut(&T) -> U) -> Linear<U> {
        Linear { weight: f(&self.weight), bias: self.bias.as_ref().map(&mut *f), n_in: self.n_in, n_out: self.n_out }
    }
}

/// A layer normalisation with weights: `y = (x - mean) / deviation * weight + bias` over each row.
#[derive(Clone, Debug)]
pub struct LayerNorm<T> {
    /// (width)
    pub weight: T,
    /// (width)
    pub bias: T,
    /// Width of a row.
    pub width: usize,
    /// Added to the variance, or to the deviation.
    pub eps: f32,
    /// Which deviation: `sqrt(variance + eps)`, or, if this is true, `sqrt(sum (x - mean)^2 / (width - 1)) + eps`.
    pub unbiased: bool,
}

impl<T> LayerNorm<T> {
    /// The same with its arrays elsewhere.
    pub fn map<U>(&self, f: &mut impl FnMut(&T) -> U) -> LayerNorm<U> {
        let LayerNorm { width, eps, unbiased, .. } = *self;
        LayerNorm { weight: f(&self.weight), bias: f(&self.bias), width, eps, unbiased }
    }
}

/// Shape of an HSTU attention: one row of its input holds, in this order, u (heads * dv), v (heads * dv),
/// q (heads * dqk) and k (heads * dqk), heads outermost inside each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HstuShape {
    /// Number of heads.
    pub heads: usize,
    /// Width of one head's q and k.
    pub dqk: usize,
    /// Width of one head's u and v.
    pub dv: usize,
    /// N: the padded sequence length that attention weights are divided by.
    pub padded_length: usize,
}

impl HstuShape {
    /// Width of one row of u, v, q, k together.
    pub fn uvqk(&self) -> usize {
        2 * self.heads * (self.dv + self.dqk)
    }

    /// Width of the attention's result.
    pub fn attended(&self) -> usize {
        self.heads * self.dv
    }
}

/// A batch of sequences as the attention operations see it: rows of all sequences one after the other.
#[derive(Clone, Debug)]
pub struct Rows<I> {
    /// R: rows of all sequences together.
    pub n_rows: usize,
    /// Rows of the longest sequence.
    pub max_length: usize,
    /// (R): the first row of the sequence that each row belongs to.
    pub start: I,
}

/// What a row attends to in its sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionMask {
    /// Itself and the rows before it.
    Causal,
    /// All rows.
    Bidirectional,
}

impl AttentionMask {
    /// How many rows, from the first on, row `i` of a sequence of `length` rows attends to.
    #[inline]
    pub fn attended(self, i: usize, length: usize) -> usize {
        match self {
            AttentionMask::Causal => i + 1,
            AttentionMask::Bidirectional => length,
        }
    }
}

/// Shape of a softmax attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Width of all heads together.
    pub width: usize,
    /// Number of heads.
    pub heads: usize,
    /// What a row attends to.
    pub mask: AttentionMask,
}

/// Array operations of a backend. See the module documentation for the conventions.
pub trait Ops {
    /// A device array of f32. Cloning shares the array.
    type Floats: Clone;
    /// A device array of u32. Cloning shares the array.
    type Ints: Clone;

    /// Copies (or shares) a host tensor into a device array.
    fn floats(&mut self, tensor: &Tensor) -> Self::Floats;

    /// Copies host integers into a device array.
    fn ints(&mut self, values: &[u32]) -> Self::Ints;

    /// Completes all operations so far and returns the values of `array`.
    ///
    /// # Errors
    /// Whatever went wrong on the device since the last call.
    fn read(&mut self, array: &Self::Floats) -> Result<Vec<f32>>;

    /// (rows, width) = rows `indices` of `table` (any, width).
    fn gather(&mut self, table: &Self::Floats, width: usize, indices: &Self::Ints, rows: usize) -> Self::Floats;

    /// (rows, width) = `scale * items[ids] + positions[row - start[row]]`.
    fn embed(
        &mut self,
        items: &Self::Floats,
        positions: &Self::Floats,
        width: usize,
        scale: f32,
        ids: &Self::Ints,
        rows: &Rows<Self::Ints>,
    ) -> Self::Floats;

    /// (rows, n_out) = activation(x W + b) + residual, with x (rows, n_in) and residual (rows, n_out).
    fn linear(
        &mut self,
        x: &Self::Floats,
        rows: usize,
        layer: &Linear<Self::Floats>,
        activation: Activation,
        residual: Option<&Self::Floats>,
    ) -> Self::Floats;

    /// (rows, width): x, some of whose elements are set to zero in training, as the configuration of the training has it for this
    /// site. Nothing happens elsewhere.
    fn dropout(&mut self, x: &Self::Floats, _rows: usize, _width: usize, _site: DropoutSite) -> Self::Floats {
        x.clone()
    }

    /// (rows, n_out) = dropout(x W + b) + residual, with the dropout of `site` in training and none elsewhere.
    fn linear_with_dropout(
        &mut self,
        x: &Self::Floats,
        rows: usize,
        layer: &Linear<Self::Floats>,
        _site: DropoutSite,
        residual: &Self::Floats,
    ) -> Self::Floats {
        self.linear(x, rows, layer, Activation::Identity, Some(residual))
    }

    /// (rows, width) = (x - mean) / sqrt(variance + eps) over each row, without affine weights.
    fn layer_norm(&mut self, x: &Self::Floats, rows: usize, width: usize, eps: f32) -> Self::Floats;

    /// (rows, width): layer normalisation with weights.
    fn affine_layer_norm(&mut self, x: &Self::Floats, rows: usize, norm: &LayerNorm<Self::Floats>) -> Self::Floats;

    /// (rows, width) = x / max(||x||, eps) over each row.
    fn l2_norm(&mut self, x: &Self::Floats, rows: usize, width: usize, eps: f32) -> Self::Floats;

    /// (rows, hidden) = activation(x[:, ..hidden]) * x[:, hidden..], with x (rows, 2 * hidden).
    fn glu(&mut self, x: &Self::Floats, rows: usize, hidden: usize, activation: Activation) -> Self::Floats;

    /// (rows, sum of widths): the parts (rows, width) side by side.
    fn concat(&mut self, parts: &[(&Self::Floats, usize)], rows: usize) -> Self::Floats;

    /// The relative time bucket of each (row, earlier row) pair, in a layout private to the backend:
    /// `bucket(next_timestamps[i] - timestamps[j])`, see [`crate::sequence::time_bucket`].
    fn time_buckets(&mut self, batch: &SequenceBatch, rows: &Rows<Self::Ints>) -> Self::Ints;

    /// (rows, heads * dv): HSTU's pointwise attention (arXiv 2402.17152, equations 2 and 3), without softmax:
    /// `sum_j silu(q_i . k_j + pos_w[N - 1 + j - i] + ts_w[bucket_ij]) / N * v_j` over j <= i.
    fn hstu_attention(
        &mut self,
        uvqk: &Self::Floats,
        shape: HstuShape,
        rows: &Rows<Self::Ints>,
        buckets: &Self::Ints,
        pos_w: &Self::Floats,
        ts_w: &Self::Floats,
    ) -> Self::Floats;

    /// HSTU's gate: `u * a` (rows, heads * dv) with a = layer_norm(attended), or, with `concat_ua`,
    /// `[u, a, u * a]` (rows, 3 * heads * dv). `uvqk` as in [`Ops::hstu_attention`].
    fn hstu_gate(
        &mut self,
        uvqk: &Self::Floats,
        attended: &Self::Floats,
        shape: HstuShape,
        n_rows: usize,
        eps: f32,
        concat_ua: bool,
    ) -> Self::Floats;

    /// (rows, width): softmax attention within sequences, scale 1 / sqrt(width of a head). `q` is (rows, width); `kv` is
    /// (rows, 2 * width): keys, then values. In training, probabilities have the dropout of `site`.
    fn softmax_attention(
        &mut self,
        q: &Self::Floats,
        kv: &Self::Floats,
        shape: AttentionShape,
        rows: &Rows<Self::Ints>,
        site: DropoutSite,
    ) -> Self::Floats;

    /// (rows, hidden): the states of a layer of gated recurrent units (arXiv 1406.1078), as torch's `nn.GRU` has it. `x` (rows, 3 hidden)
    /// is what the layer's input adds to the reset gate, the update gate and the candidate; `recurrent` (hidden -> 3 hidden) is the
    /// same of the state before, zeros at the beginning of each sequence; `offsets` (B + 1) are their first rows, and R at the end:
    /// `r = sigmoid(x_r + h_r)`, `z = sigmoid(x_z + h_z)`, `n = tanh(x_n + r * h_n)`, `state = (1 - z) * n + z * state before`.
    fn gru(&mut self, x: &Self::Floats, recurrent: &Linear<Self::Floats>, offsets: &[u32]) -> Self::Floats;
}
