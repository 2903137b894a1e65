//! What must hold between hyper-parameters.

use super::{
    Bert4recConfig, EncoderConfig, GatingCombination, Gru4recConfig, HstuConfig, ModelConfig, MolConfig, SasrecConfig,
    SimilarityConfig, TrainConfig, TransformerConfig,
};
use crate::error::Parameter;
use crate::{Error, Result};

/// Largest size accepted: products of two of them cannot overflow 64 bits.
const MAX_SIZE: usize = i32::MAX as usize;

/// A hyper-parameter, by its gin name, that breaks a rule.
pub(super) struct Wrong {
    pub key: &'static str,
    pub expected: String,
    pub found: String,
}

type Check = Result<(), Wrong>;

impl ModelConfig {
    /// Checks that a model of this configuration can be built.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the first hyper-parameter, in gin's words, that is out of its range.
    pub fn validate(&self) -> Result<()> {
        self.check().map_err(|wrong| Error::argument(Parameter::HyperParameter(wrong.key), wrong.expected, wrong.found))
    }

    pub(super) fn check(&self) -> Check {
        at_least(1, "train_fn.item_embedding_dim", self.item_embedding_dim)?;
        at_least(1, "train_fn.max_sequence_length", self.max_sequence_length)?;
        at_least(0, "train_fn.gr_output_length", self.gr_output_length)?;
        positive("train_fn.l2_norm_eps", self.l2_norm_eps)?;
        match &self.encoder {
            EncoderConfig::Hstu(hstu) => hstu.check()?,
            EncoderConfig::Sasrec(sasrec) => sasrec.check(self.item_embedding_dim)?,
            EncoderConfig::Gru4rec(gru) => gru.check(self.item_embedding_dim)?,
            EncoderConfig::Bert4rec(bert) => bert.check(self.item_embedding_dim)?,
            EncoderConfig::Transformer(transformer) => transformer.check(self.item_embedding_dim)?,
        }
        let dot_product = self.similarity == SimilarityConfig::DotProduct;
        rule("output", self.output.is_tied() || dot_product, "Mixture-of-Logits", || {
            "a dot product, where items have an output table of their own or a bias".to_string()
        })?;
        rule("output.bias", !(self.output.bias && self.item_l2_norm), "item_l2_norm = true", || {
            "items that are not l2-normalised, where they have a bias".to_string()
        })?;
        match &self.similarity {
            SimilarityConfig::DotProduct => Ok(()),
            SimilarityConfig::Mol(mol) => {
                rule("given_components", !mol.given_components, "true", || {
                    "false, as the similarity of an encoder projects its embeddings".to_string()
                })?;
                mol.check()
            }
        }
    }
}

impl HstuConfig {
    fn check(&self) -> Check {
        at_least(1, "hstu_encoder.num_blocks", self.num_blocks)?;
        at_least(1, "hstu_encoder.num_heads", self.num_heads)?;
        at_least(1, "hstu_encoder.dqk", self.dqk)?;
        at_least(1, "hstu_encoder.dv", self.dv)
    }
}

impl SasrecConfig {
    fn check(&self, item_embedding_dim: usize) -> Check {
        at_least(1, "sasrec_encoder.num_blocks", self.num_blocks)?;
        at_least(1, "sasrec_encoder.num_heads", self.num_heads)?;
        at_least(1, "sasrec_encoder.ffn_hidden_dim", self.ffn_hidden_dim)?;
        rule("sasrec_encoder.num_heads", item_embedding_dim.is_multiple_of(self.num_heads), self.num_heads, || {
            format!("a divisor of item_embedding_dim = {item_embedding_dim}")
        })
    }
}

impl Gru4recConfig {
    fn check(&self, item_embedding_dim: usize) -> Check {
        at_least(1, "gru4rec_encoder.num_layers", self.num_layers)?;
        at_least(1, "gru4rec_encoder.hidden_dim", self.hidden_dim)?;
        rule("gru4rec_encoder.hidden_dim", self.dense || self.hidden_dim == item_embedding_dim, self.hidden_dim, || {
            format!("item_embedding_dim = {item_embedding_dim}, as there is no dense layer")
        })
    }
}

impl Bert4recConfig {
    fn check(&self, item_embedding_dim: usize) -> Check {
        at_least(1, "bert4rec_encoder.num_blocks", self.num_blocks)?;
        at_least(1, "bert4rec_encoder.num_heads", self.num_heads)?;
        at_least(1, "bert4rec_encoder.ffn_hidden_dim", self.ffn_hidden_dim)?;
        positive("bert4rec_encoder.layer_norm_eps", self.layer_norm_eps)?;
        positive("bert4rec_encoder.item_scale", self.item_scale)?;
        at_least(if self.layer_norm_unbiased { 2 } else { 1 }, "item_embedding_dim", item_embedding_dim)?;
        rule("bert4rec_encoder.num_heads", item_embedding_dim.is_multiple_of(self.num_heads), self.num_heads, || {
            format!("a divisor of item_embedding_dim = {item_embedding_dim}")
        })
    }
}

impl TransformerConfig {
    fn check(&self, item_embedding_dim: usize) -> Check {
        at_least(1, "encoder.num_blocks", self.num_blocks)?;
        at_least(1, "encoder.num_heads", self.num_heads)?;
        at_least(1, "encoder.ffn_hidden_dim", self.ffn_hidden_dim)?;
        positive("encoder.layer_norm_eps", self.layer_norm_eps)?;
        positive("encoder.final_norm_eps", self.final_norm_eps)?;
        positive("encoder.item_scale", self.item_scale)?;
        at_least(if self.layer_norm_unbiased { 2 } else { 1 }, "item_embedding_dim", item_embedding_dim)?;
        rule("encoder.num_heads", item_embedding_dim.is_multiple_of(self.num_heads), self.num_heads, || {
            format!("a divisor of item_embedding_dim = {item_embedding_dim}")
        })?;
        rule("encoder.drops_first_event", !self.drops_first_event || self.mask_token, true, || {
            "false, unless a mask token follows: a history of one event would be empty".to_string()
        })?;
        // Positions of padding are known where they are counted from the last event, and a mask token is never padded before.
        let padded = self.padding != super::Padding::None;
        let suits = self.causal && !self.mask_token && self.positions == super::PositionOrder::FromLast;
        rule("encoder.padding", !padded || suits, "padding", || {
            "none, unless the transformer is causal, has no mask token and counts positions from the last".to_string()
        })
    }
}

impl MolConfig {
    pub(super) fn check(&self) -> Check {
        at_least(1, "create_mol_interaction_module.item_dot_product_groups", self.item_dot_product_groups)?;
        at_least(1, "create_mol_interaction_module.dot_product_dimension", self.dot_product_dimension)?;
        positive("create_mol_interaction_module.temperature", self.temperature)?;
        positive("create_mol_interaction_module.eps", self.eps)?;
        let (groups, tables) = (self.query_dot_product_groups, self.uid_embedding_hash_sizes.len());
        // Each table takes one group away from the projection of the query, which must keep at least one.
        at_least(tables + 1, "create_mol_interaction_module.query_dot_product_groups", groups)?;
        for &size in &self.uid_embedding_hash_sizes {
            at_least(1, "create_mol_interaction_module.uid_embedding_hash_sizes", size)?;
        }
        let widths = [
            ("create_mol_interaction_module.query_hidden_dim", self.query_hidden.as_ref().map(|glu| glu.hidden_dim)),
            ("create_mol_interaction_module.item_hidden_dim", self.item_hidden.as_ref().map(|glu| glu.hidden_dim)),
            ("create_mol_interaction_module.gating_query_hidden_dim", self.gating_query_hidden_dim),
            ("create_mol_interaction_module.gating_item_hidden_dim", self.gating_item_hidden_dim),
            ("create_mol_interaction_module.gating_qi_hidden_dim", self.gating_qi_hidden_dim),
        ];
        for (key, width) in widths {
            at_least(1, key, width.unwrap_or(1))?;
        }
        let layers = widths.iter().take(4).find(|(_, width)| self.given_components && width.is_some());
        if let Some((key, width)) = layers {
            rule(key, false, width.unwrap_or_default(), || {
                "none, as given components have nothing but logits".to_string()
            })?;
        }
        let has_both = self.gating_query_hidden_dim.is_some() && self.gating_item_hidden_dim.is_some();
        let sums = self.gating_combination == GatingCombination::None;
        rule(
            "create_mol_interaction_module.gating_combination_type",
            sums || has_both || self.given_components,
            "'glu_silu' or 'glu_silu_ln'",
            || "'none', unless gating_query_fn and gating_item_fn are both True".to_string(),
        )
    }

    /// Checks that a similarity of this configuration can be built.
    ///
    /// # Errors
    /// As [`ModelConfig::validate`].
    pub fn validate(&self) -> Result<()> {
        self.check().map_err(|wrong| Error::argument(Parameter::HyperParameter(wrong.key), wrong.expected, wrong.found))
    }
}

impl TrainConfig {
    /// Checks that a model can be trained so.
    ///
    /// # Errors
    /// As [`ModelConfig::validate`].
    pub fn validate(&self) -> Result<()> {
        self.check().map_err(|wrong| Error::argument(Parameter::HyperParameter(wrong.key), wrong.expected, wrong.found))
    }

    pub(super) fn check(&self) -> Check {
        at_least(1, "train_fn.local_batch_size", self.batch_size)?;
        at_least(1, "train_fn.num_epochs", self.epochs)?;
        at_least(1, "train_fn.num_negatives", self.negatives)?;
        at_least(0, "train_fn.num_warmup_steps", self.warmup_steps)?;
        at_least(1, "train_fn.full_eval_every_n", self.evaluation.full_every)?;
        at_least(0, "train_fn.partial_eval_num_iters", self.evaluation.partial_batches)?;
        at_least(1, "train_fn.eval_batch_size", self.evaluation.batch_size)?;
        at_least(1, "item_dropout_masks", self.item_dropout_masks.unwrap_or(1))?;
        positive("train_fn.temperature", self.temperature)?;
        rule(
            "bert4rec_encoder.mask_probability",
            (0.0..=1.0).contains(&self.mask_probability),
            self.mask_probability,
            || "a number from 0 to 1".to_string(),
        )?;
        positive("train_fn.learning_rate", self.learning_rate)?;
        not_negative("train_fn.weight_decay", self.weight_decay)?;
        positive("max_gradient_norm", self.max_gradient_norm.unwrap_or(1.0))?;
        not_negative("train_fn.loss_weights", self.loss_weights.mi_loss)?;
        not_negative("train_fn.loss_weights", self.loss_weights.uid_embedding_l2_norm)?;
        let dropout = &self.dropout;
        let rates = [
            ("train_fn.dropout_rate", dropout.input),
            ("hstu_encoder.linear_dropout_rate", dropout.hstu_linear),
            ("sasrec_encoder.ffn_dropout_rate", dropout.attention),
            ("sasrec_encoder.ffn_dropout_rate", dropout.feed_forward),
            ("create_mol_interaction_module.query_dropout_rate", dropout.query),
            ("create_mol_interaction_module.item_dropout_rate", dropout.item),
            ("create_mol_interaction_module.uid_dropout_rate", dropout.uid),
            ("create_mol_interaction_module.gating_item_dropout_rate", dropout.gate_item),
            ("create_mol_interaction_module.gating_qi_dropout_rate", dropout.gate_cross),
            ("create_mol_interaction_module.softmax_dropout_rate", dropout.gate_softmax),
        ];
        rates.into_iter().try_for_each(|(key, rate)| {
            rule(key, (0.0..1.0).contains(&rate), rate, || "a number from 0 to below 1".to_string())
        })
    }
}

fn rule(key: &'static str, holds: bool, found: impl ToString, expected: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(Wrong { key, expected: expected(), found: found.to_string() }) }
}

fn at_least(least: usize, key: &'static str, size: usize) -> Check {
    rule(key, (least..=MAX_SIZE).contains(&size), size, || format!("an integer from {least} to {MAX_SIZE}"))
}

fn positive(key: &'static str, value: f32) -> Check {
    rule(key, value.is_finite() && value > 0.0, value, || "a finite number above 0".to_string())
}

fn not_negative(key: &'static str, value: f32) -> Check {
    rule(key, value.is_finite() && value >= 0.0, value, || "a finite number, 0 or above".to_string())
}
