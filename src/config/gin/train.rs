//! Which parameters of a gin file make up a [`TrainConfig`], and what the reference uses where the file is silent.

use super::bindings::Bindings;
use super::{MainModule, main_module};
use crate::Result;
use crate::config::train::ITEM_DROPOUT_MASKS;
use crate::config::{DropoutRates, EvaluationSchedule, LossKind, LossWeights, NegativeSampling, TrainConfig};

/// Settings that mean weights or activations in bfloat16.
const BF16: [&str; 5] = [
    "train_fn.main_module_bf16",
    "train_fn.eval_bf16",
    "train_fn.mol_bf16_training",
    "get_similarity_function.bf16_training",
    "create_mol_interaction_module.bf16_training",
];

pub(super) fn train(gin: &mut Bindings) -> Result<TrainConfig> {
    let losses = [("SampledSoftmaxLoss", LossKind::SampledSoftmax), ("FullSoftmaxLoss", LossKind::FullSoftmax)];
    let samplings = [
        ("local", NegativeSampling::Uniform),
        ("in-batch", NegativeSampling::InBatch),
        ("popularity", NegativeSampling::Popularity),
    ];
    for key in BF16 {
        if gin.flag(key, false)? {
            gin.warn(key, "asks for bfloat16: f32 is used, which is more exact");
        }
    }
    let ratio = "train_fn.positional_sampling_ratio";
    let found = gin.number(ratio, Some(1.0))?;
    if found != 1.0 {
        return Err(gin.error(ratio, "1.0, all that is supported", found.to_string()));
    }
    Ok(TrainConfig {
        batch_size: gin.size("train_fn.local_batch_size", Some(128))?,
        epochs: gin.size("train_fn.num_epochs", Some(101))?,
        loss: gin.choice("train_fn.loss_module", "SampledSoftmaxLoss", &losses)?,
        negatives: gin.size("train_fn.num_negatives", Some(1))?,
        sampling: gin.choice("train_fn.sampling_strategy", "in-batch", &samplings)?,
        temperature: gin.number("train_fn.temperature", Some(0.05))?,
        mask_probability: gin.number("bert4rec_encoder.mask_probability", Some(0.2))?,
        learning_rate: gin.number("train_fn.learning_rate", Some(1e-3))?,
        weight_decay: gin.number("train_fn.weight_decay", Some(1e-3))?,
        warmup_steps: gin.size("train_fn.num_warmup_steps", Some(0))?,
        max_gradient_norm: None,
        lazy_item_updates: false,
        dropout: dropout(gin)?,
        item_dropout_masks: ITEM_DROPOUT_MASKS,
        loss_weights: loss_weights(gin)?,
        evaluation: EvaluationSchedule {
            full_every: gin.size("train_fn.full_eval_every_n", Some(1))?,
            partial_batches: gin.size("train_fn.partial_eval_num_iters", Some(32))?,
            batch_size: gin.size("train_fn.eval_batch_size", Some(128))?,
        },
        seed: gin.size("train_fn.random_seed", Some(42))? as u64,
    })
}

fn dropout(gin: &mut Bindings) -> Result<DropoutRates> {
    let unused = "hstu_encoder.attn_dropout_rate";
    if gin.number(unused, Some(0.0))? != 0.0 {
        gin.warn(unused, "has no effect, here and in the reference");
    }
    let (attention, feed_forward) = match main_module(gin)? {
        MainModule::Bert4rec => ("bert4rec_encoder.attn_dropout_rate", "bert4rec_encoder.hidden_dropout_rate"),
        _ => ("sasrec_encoder.ffn_dropout_rate", "sasrec_encoder.ffn_dropout_rate"),
    };
    Ok(DropoutRates {
        input: gin.number("train_fn.dropout_rate", Some(0.2))?,
        hstu_linear: gin.number("hstu_encoder.linear_dropout_rate", Some(0.0))?,
        attention: gin.number(attention, Some(0.2))?,
        feed_forward: gin.number(feed_forward, Some(0.2))?,
        query: gin.number("create_mol_interaction_module.query_dropout_rate", Some(0.0))?,
        item: gin.number("create_mol_interaction_module.item_dropout_rate", Some(0.0))?,
        uid: gin.number("create_mol_interaction_module.uid_dropout_rate", Some(0.5))?,
        uid_whole: gin.flag("create_mol_interaction_module.uid_embedding_level_dropout", false)?,
        gate_item: gin.number("create_mol_interaction_module.gating_item_dropout_rate", Some(0.0))?,
        gate_cross: gin.number("create_mol_interaction_module.gating_qi_dropout_rate", Some(0.0))?,
        gate_softmax: gin.number("create_mol_interaction_module.softmax_dropout_rate", Some(0.0))?,
    })
}

fn loss_weights(gin: &mut Bindings) -> Result<LossWeights> {
    let [mi_loss, uid_embedding_l2_norm] =
        gin.weights("train_fn.loss_weights", ["mi_loss", "uid_embedding_l2_norm"])?;
    Ok(LossWeights { mi_loss, uid_embedding_l2_norm })
}
