//! Hyper-parameters of training: what makes the weights, beside the model that they are for.

use serde::{Deserialize, Serialize};

/// [`TrainConfig::item_dropout_masks`] by default: close to one for each draw, at next to no cost.
pub(crate) const ITEM_DROPOUT_MASKS: Option<usize> = Some(8);

/// How a model is trained. [`TrainConfig::default`] has the reference's defaults where it has some, and uniform negatives.
///
/// ```
/// use rails_wgpu::config::TrainConfig;
///
/// let config = TrainConfig::default().with_epochs(20).with_batch_size(64).with_seed(7);
/// assert!(config.validate().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct TrainConfig {
    /// Users per batch; the last batch of an epoch may be smaller.
    pub batch_size: usize,
    /// Passes over all users.
    pub epochs: usize,
    /// What each position is compared with.
    #[serde(default)]
    pub loss: LossKind,
    /// Negatives drawn for every position; only the sampled softmax has some.
    pub negatives: usize,
    /// Where negatives come from.
    pub sampling: NegativeSampling,
    /// Divisor of similarities in the loss. Not the temperature inside of Mixture-of-Logits, which belongs to the model.
    pub temperature: f32,
    /// BERT4Rec: the share of events that are masked, the last one aside, which always is.
    #[serde(default = "mask_probability")]
    pub mask_probability: f32,
    /// Learning rate of AdamW.
    pub learning_rate: f32,
    /// Decoupled weight decay of AdamW, on all parameters.
    pub weight_decay: f32,
    /// Steps over which the learning rate rises to its value, linearly.
    pub warmup_steps: usize,
    /// Largest norm of the gradient of all parameters together; a larger one is scaled down to it. `None`: no clipping.
    pub max_gradient_norm: Option<f32>,
    /// Whether a step changes only those rows of the item table that its batch has, and their moments: faster with many items.
    #[serde(default)]
    pub lazy_item_updates: bool,
    /// Dropout rates.
    pub dropout: DropoutRates,
    /// Masks that dropout of the item side draws for an item of a batch, whose positives and negatives take turns. `None`: one for each
    /// of them, as in the reference, which computes the item side for each.
    pub item_dropout_masks: Option<usize>,
    /// Weights of the losses beside the softmax.
    pub loss_weights: LossWeights,
    /// When the model is evaluated.
    pub evaluation: EvaluationSchedule,
    /// Seed of weights, negatives, dropout and order of users.
    pub seed: u64,
}

/// Dropout rates by site, each from 0 to below 1. A site that a model does not have is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct DropoutRates {
    /// Item embeddings with their position embeddings, as they enter the encoder.
    pub input: f32,
    /// HSTU: input of the output projection.
    pub hstu_linear: f32,
    /// SASRec and BERT4Rec: attention probabilities.
    pub attention: f32,
    /// SASRec and BERT4Rec: after each of the two layers of the feed-forward part; BERT4Rec: after the attention, too.
    pub feed_forward: f32,
    /// MoL: input of the query projection.
    pub query: f32,
    /// MoL: input of the item projection.
    pub item: f32,
    /// MoL: embeddings of the uid tables.
    pub uid: f32,
    /// Whether whole uid embeddings are dropped instead of their elements.
    pub uid_whole: bool,
    /// MoL: input of the item-only gate part.
    pub gate_item: f32,
    /// MoL: logits that enter the cross gate part.
    pub gate_cross: f32,
    /// MoL: gate probabilities, which are normalised again.
    pub gate_softmax: f32,
}

/// What each position is compared with in the loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LossKind {
    /// Its positive and the negatives drawn for it.
    #[default]
    SampledSoftmax,
    /// All items: those that negatives would be drawn of, and the batch's targets. Not with Mixture-of-Logits.
    FullSoftmax,
}

/// RecBole's share of masked events.
fn mask_probability() -> f32 {
    0.2
}

/// Where negatives come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NegativeSampling {
    /// All items alike, with replacement, for every position anew (`local` in the reference).
    Uniform,
    /// The items of the batch, each once (`in-batch`).
    InBatch,
    /// All items by the number of their events, with the correction by log Q of sampled softmax.
    Popularity,
}

/// Weights of the auxiliary losses of Mixture-of-Logits; 0: not computed into the loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct LossWeights {
    /// Mutual information between pairs and gate probabilities (arXiv 2407.15462, section 3): the mean entropy of the gate minus the entropy of its mean.
    pub mi_loss: f32,
    /// Squared norm of uid embeddings, mean over positions.
    pub uid_embedding_l2_norm: f32,
}

/// When the model is evaluated: after each epoch, over all users after every `full_every`-th and over some batches else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct EvaluationSchedule {
    /// Every how many epochs all users are evaluated.
    pub full_every: usize,
    /// Batches that are evaluated after the others.
    pub partial_batches: usize,
    /// Users per batch.
    pub batch_size: usize,
}

impl Default for TrainConfig {
    fn default() -> TrainConfig {
        TrainConfig {
            batch_size: 128,
            epochs: 101,
            loss: LossKind::SampledSoftmax,
            negatives: 128,
            sampling: NegativeSampling::Uniform,
            temperature: 0.05,
            mask_probability: mask_probability(),
            learning_rate: 1e-3,
            weight_decay: 1e-3,
            warmup_steps: 0,
            max_gradient_norm: None,
            lazy_item_updates: false,
            dropout: DropoutRates::default(),
            item_dropout_masks: ITEM_DROPOUT_MASKS,
            loss_weights: LossWeights::default(),
            evaluation: EvaluationSchedule::default(),
            seed: 42,
        }
    }
}

impl Default for DropoutRates {
    /// The reference's defaults, and none where it has none.
    fn default() -> DropoutRates {
        DropoutRates { input: 0.2, attention: 0.2, feed_forward: 0.2, uid: 0.5, ..DropoutRates::NONE }
    }
}

impl DropoutRates {
    /// No dropout anywhere.
    pub const NONE: DropoutRates = DropoutRates {
        input: 0.0,
        hstu_linear: 0.0,
        attention: 0.0,
        feed_forward: 0.0,
        query: 0.0,
        item: 0.0,
        uid: 0.0,
        uid_whole: false,
        gate_item: 0.0,
        gate_cross: 0.0,
        gate_softmax: 0.0,
    };
}

impl Default for EvaluationSchedule {
    fn default() -> EvaluationSchedule {
        EvaluationSchedule { full_every: 1, partial_batches: 32, batch_size: 128 }
    }
}

/// Gives a struct a `with_` method for each of some fields.
macro_rules! with {
    ($type:ident { $($field:ident: $of:ty => $with:ident),* $(,)? }) => {
        impl $type {
            $(
                #[doc = concat!("Sets [`", stringify!($type), "::", stringify!($field), "`].")]
                #[must_use]
                pub fn $with(self, $field: $of) -> $type {
                    $type { $field, ..self }
                }
            )*
        }
    };
}

with!(TrainConfig {
    batch_size: usize => with_batch_size,
    epochs: usize => with_epochs,
    loss: LossKind => with_loss,
    negatives: usize => with_negatives,
    sampling: NegativeSampling => with_sampling,
    temperature: f32 => with_temperature,
    mask_probability: f32 => with_mask_probability,
    learning_rate: f32 => with_learning_rate,
    weight_decay: f32 => with_weight_decay,
    warmup_steps: usize => with_warmup_steps,
    max_gradient_norm: Option<f32> => with_max_gradient_norm,
    lazy_item_updates: bool => with_lazy_item_updates,
    dropout: DropoutRates => with_dropout,
    item_dropout_masks: Option<usize> => with_item_dropout_masks,
    loss_weights: LossWeights => with_loss_weights,
    evaluation: EvaluationSchedule => with_evaluation,
    seed: u64 => with_seed,
});

with!(DropoutRates {
    input: f32 => with_input,
    hstu_linear: f32 => with_hstu_linear,
    attention: f32 => with_attention,
    feed_forward: f32 => with_feed_forward,
    query: f32 => with_query,
    item: f32 => with_item,
    uid: f32 => with_uid,
    uid_whole: bool => with_uid_whole,
    gate_item: f32 => with_gate_item,
    gate_cross: f32 => with_gate_cross,
    gate_softmax: f32 => with_gate_softmax,
});

with!(LossWeights {
    mi_loss: f32 => with_mi_loss,
    uid_embedding_l2_norm: f32 => with_uid_embedding_l2_norm,
});

with!(EvaluationSchedule {
    full_every: usize => with_full_every,
    partial_batches: usize => with_partial_batches,
    batch_size: usize => with_batch_size,
});
