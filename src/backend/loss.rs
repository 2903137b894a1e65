//! The losses of training and their gradients, as a device sees them: what goes in and what comes out. Forward and backward are one
//! operation, so that nothing of the size of all (position, negative) pairs times their logits is ever stored.
//!
//! P positions (supervised events), R >= 1 negatives of each, M distinct items of a batch; L, P_Q, P_X and D_P as in
//! [`Mol`](crate::model::Mol). Shapes and indices are trusted. A NaN or an infinity in an input shows in the loss.

use crate::config::MolConfig;
use crate::model::CrossGate;
use crate::random::Dropout;

/// What each position is to find, among what: the loss of a position is `-log softmax(logits)[0]` of the logits of its positive and
/// of its negatives, and the loss of a batch is the mean over positions. The logit of a pair is
/// `similarity / temperature - correction`; a negative that is the positive gets the logit -50,000 and no gradient.
#[derive(Clone, Copy, Debug)]
pub struct SampledSoftmax<'a> {
    /// (P): which of the M items is a position's positive.
    pub positives: &'a [u32],
    /// (P, R): which of the M items are its negatives.
    pub negatives: &'a [u32],
    /// Divisor of similarities.
    pub temperature: f32,
    /// (M): the logQ correction (Yi et al., *Sampling-bias-corrected neural modeling*, RecSys 2019): the logarithm of the probability
    /// that an item is drawn as a negative, for negatives that are not uniform.
    pub correction: Option<&'a [f32]>,
}

/// Query and item embeddings whose inner products are the similarities of a [`SampledSoftmax`].
#[derive(Clone, Copy, Debug)]
pub struct DotLoss<'a> {
    /// D: width of an embedding.
    pub dim: usize,
    /// (P, D)
    pub queries: &'a [f32],
    /// (M, D)
    pub items: &'a [f32],
    /// What is compared with what.
    pub softmax: SampledSoftmax<'a>,
}

/// What each position is to find, among all M items: the loss of a position is `-log softmax(similarities / temperature)[target]`,
/// and the loss of a batch is the mean over positions.
#[derive(Clone, Copy, Debug)]
pub struct FullSoftmax<'a> {
    /// (P): which of the M items each position is to find.
    pub targets: &'a [u32],
    /// Divisor of similarities.
    pub temperature: f32,
}

/// Query and item embeddings whose inner products are the similarities of a [`FullSoftmax`]. A bias of items is the last number of
/// their embeddings, which that of each query multiplies by 1.
#[derive(Clone, Copy, Debug)]
pub struct FullDotLoss<'a> {
    /// D: width of an embedding.
    pub dim: usize,
    /// (P, D)
    pub queries: &'a [f32],
    /// (M, D)
    pub items: &'a [f32],
    /// What is to be found.
    pub softmax: FullSoftmax<'a>,
}

/// Gradients of a [`DotLoss`] or a [`FullDotLoss`]. All are overwritten.
#[derive(Debug)]
pub struct DotGradients<'a> {
    /// (P, D)
    pub queries: &'a mut [f32],
    /// (M, D)
    pub items: &'a mut [f32],
}

/// One side of Mixture-of-Logits pairs: queries or items.
#[derive(Clone, Copy, Debug)]
pub struct MolSide<'a> {
    /// (rows, P_Q * D_P) or (rows, P_X * D_P): component embeddings.
    pub components: &'a [f32],
    /// (rows, L): the one-sided part of the gate, if there is one.
    pub gate: Option<&'a [f32]>,
}

/// Gradient of a [`MolSide`].
#[derive(Debug)]
pub struct MolSideGradient<'a> {
    /// As [`MolSide::components`].
    pub components: &'a mut [f32],
    /// As [`MolSide::gate`].
    pub gate: Option<&'a mut [f32]>,
}

/// Dropout inside the gate; a rate of 0 is none. Element `pair * L + l` of its masks belongs to logit l of a pair: pair p is position
/// p with its positive, or pair p * R + r is position p with its negative r.
#[derive(Clone, Copy, Debug)]
pub struct GateDropout {
    /// Of the logits that the cross part of the gate sees.
    pub logits: Dropout,
    /// Of the gate's probabilities, which are then divided by their sum, or by 1e-6 if that is greater.
    pub probabilities: Dropout,
}

/// Mixture-of-Logits scores (arXiv 2407.15462, equations 2 to 5) as the similarities of a [`SampledSoftmax`].
#[derive(Clone, Debug)]
pub struct MolLoss<'a> {
    /// Shape, temperature of the components' logits, combination of the gate.
    pub config: &'a MolConfig,
    /// Cross part of the gate.
    pub cross: CrossGate<&'a [f32]>,
    /// P rows.
    pub queries: MolSide<'a>,
    /// P rows: the queries as the negatives see them, if dropout made others.
    pub negative_queries: Option<MolSide<'a>>,
    /// M rows.
    pub items: MolSide<'a>,
    /// What is compared with what.
    pub softmax: SampledSoftmax<'a>,
    /// In the positives' pairs.
    pub positive_dropout: GateDropout,
    /// In the negatives' pairs.
    pub negative_dropout: GateDropout,
    /// Weight of the mutual information loss in the gradients; see [`MolLossValue`].
    pub mi_weight: f32,
}

/// Gradients of a [`MolLoss`], of its loss + `mi_weight` * its mutual information loss. All are overwritten. Parts are here exactly
/// if they are in the loss.
#[derive(Debug)]
pub struct MolGradients<'a> {
    /// P rows; if there are no [`MolLoss::negative_queries`], also of what the negatives add.
    pub queries: MolSideGradient<'a>,
    /// P rows.
    pub negative_queries: Option<MolSideGradient<'a>>,
    /// M rows.
    pub items: MolSideGradient<'a>,
    /// Of the weights of the cross part.
    pub cross: CrossGate<&'a mut [f32]>,
}

/// The losses of a [`MolLoss`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MolLossValue {
    /// The sampled softmax.
    pub loss: f64,
    /// The mutual information loss of the gate over the positives' pairs: `sum_l p_l log(p_l + 1e-6)` of the mean probabilities p,
    /// less the mean over pairs of the same sum of each pair's probabilities, both after dropout.
    pub mi_loss: f64,
}
