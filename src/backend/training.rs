//! What training asks of a device beyond gradients: losses, and steps of an optimiser.

use super::loss::{FullSoftmax, GateDropout, MolLossValue, SampledSoftmax};
use crate::Result;
use crate::config::{ModelConfig, MolConfig};
use crate::model::CrossGate;
use crate::ops::GradientOps;

/// One step of AdamW (Loshchilov and Hutter, *Decoupled weight decay regularization*, ICLR 2019).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Number of this step, from 1.
    pub step: u64,
    /// Learning rate of this step.
    pub learning_rate: f32,
    /// A parameter loses this share of itself, times the learning rate.
    pub weight_decay: f32,
    /// What gradients are multiplied by first: below 1 where they are clipped.
    pub gradient_scale: f32,
}

impl AdamW {
    /// Share of the first moment that stays.
    pub const BETA_1: f32 = 0.9;
    /// Share of the second moment that stays.
    pub const BETA_2: f32 = 0.98;
    /// Added to the root of the second moment.
    pub const EPS: f32 = 1e-8;

    /// What the elements of a step share: a weight w with moments m and v becomes
    /// `keep * w - step_size * m / (sqrt(v) * inverse_root + EPS)`.
    pub(crate) fn factors(&self) -> AdamWFactors {
        let power = |beta: f32| 1.0 - f64::from(beta).powf(self.step as f64);
        AdamWFactors {
            keep: (1.0 - f64::from(self.learning_rate) * f64::from(self.weight_decay)) as f32,
            step_size: (f64::from(self.learning_rate) / power(AdamW::BETA_1)) as f32,
            inverse_root: (1.0 / power(AdamW::BETA_2).sqrt()) as f32,
        }
    }
}

/// See [`AdamW::factors`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdamWFactors {
    pub keep: f32,
    pub step_size: f32,
    pub inverse_root: f32,
}

/// A parameter with the moments of its gradients, all of one shape.
#[derive(Debug)]
pub struct Trainable<'a, F> {
    /// The weights.
    pub values: &'a mut F,
    /// Decaying mean of the gradients.
    pub first_moment: &'a mut F,
    /// Decaying mean of their squares.
    pub second_moment: &'a mut F,
}

/// One side of Mixture-of-Logits pairs: component embeddings (rows, P_Q * D_P) or (rows, P_X * D_P), and the one-sided part of
/// the gate (rows, L), if there is one.
pub type MolSide<F> = (F, Option<F>);

/// What a Mixture-of-Logits loss reads, or the gradients of that.
#[derive(Clone, Debug)]
pub struct MolArrays<F> {
    /// P rows.
    pub queries: MolSide<F>,
    /// P rows: the queries as the negatives see them, if dropout made others.
    pub negative_queries: Option<MolSide<F>>,
    /// M rows.
    pub items: MolSide<F>,
    /// The cross part of the gate.
    pub cross: CrossGate<F>,
}

impl<F> MolArrays<F> {
    /// The same with arrays elsewhere, in an order of their own.
    pub fn map<U>(&self, f: &mut impl FnMut(&F) -> U) -> MolArrays<U> {
        let mut side = |(components, gate): &MolSide<F>| (f(components), gate.as_ref().map(&mut *f));
        MolArrays {
            queries: side(&self.queries),
            negative_queries: self.negative_queries.as_ref().map(&mut side),
            items: side(&self.items),
            cross: self.cross.map(f),
        }
    }
}

/// How a Mixture-of-Logits loss is computed from its arrays; see [`super::loss::MolLoss`].
#[derive(Clone, Copy, Debug)]
pub struct MolLossSettings<'a> {
    /// Shape, temperature of the logits, combination of the gate.
    pub config: &'a MolConfig,
    /// What is compared with what.
    pub softmax: SampledSoftmax<'a>,
    /// In the positives' pairs.
    pub positive_dropout: GateDropout,
    /// In the negatives' pairs.
    pub negative_dropout: GateDropout,
    /// Weight of the mutual information loss in the gradients.
    pub mi_weight: f32,
}

/// A device on which models can be trained.
pub trait TrainingOps: GradientOps {
    /// Whether models of this kind can be trained on the device.
    ///
    /// # Errors
    /// If not: what can be.
    fn check(&self, _model: &ModelConfig) -> Result<()> {
        Ok(())
    }

    /// An array of `len` zeros.
    fn zeros(&mut self, len: usize) -> Self::Floats;

    /// The sampled softmax of inner products of queries (P, D) and items (M, D) of width `dim`, and their gradients.
    ///
    /// # Errors
    /// If the device failed.
    fn dot_loss(
        &mut self,
        dim: usize,
        queries: &Self::Floats,
        items: &Self::Floats,
        softmax: SampledSoftmax,
    ) -> Result<(f64, [Self::Floats; 2])>;

    /// The softmax over all items of inner products of queries (P, D) and items (M, D) of width `dim`, and their gradients.
    ///
    /// # Errors
    /// If the device failed.
    fn full_softmax_loss(
        &mut self,
        dim: usize,
        queries: &Self::Floats,
        items: &Self::Floats,
        softmax: FullSoftmax,
    ) -> Result<(f64, [Self::Floats; 2])>;

    /// The sampled softmax of Mixture-of-Logits scores, and the gradients of all it reads.
    ///
    /// # Errors
    /// If the device failed.
    fn mol_loss(
        &mut self,
        arrays: &MolArrays<Self::Floats>,
        settings: &MolLossSettings,
    ) -> Result<(MolLossValue, MolArrays<Self::Floats>)>;

    /// `sum_r weights[r] ||row r of x||^2`, and its gradient, times `scale`.
    ///
    /// # Errors
    /// If the device failed.
    fn squared_rows(
        &mut self,
        x: &Self::Floats,
        width: usize,
        weights: &[f32],
        scale: f32,
    ) -> Result<(f64, Self::Floats)>;

    /// The sum of squares of each array; not finite if one of its elements is not, or on a GPU if a part of the sum is not, in f32.
    ///
    /// # Errors
    /// If the device failed.
    fn sums_of_squares(&mut self, arrays: &[&Self::Floats]) -> Result<Vec<f64>>;

    /// Changes a parameter; without a gradient, by its decay and its moments.
    fn update(&mut self, adamw: &AdamW, parameter: Trainable<Self::Floats>, gradient: Option<&Self::Floats>);

    /// Changes a table (any, width) of whose rows only some have a gradient: row `rows[i]`, which ascend, has row i of `gradient`.
    /// The others change as if theirs were zero, or, if the update is `lazy`, not at all.
    fn update_rows(
        &mut self,
        adamw: &AdamW,
        table: Trainable<Self::Floats>,
        width: usize,
        rows: &[u32],
        gradient: &Self::Floats,
        lazy: bool,
    );
}
