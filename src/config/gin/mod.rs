//! The reference's gin files.
//!
//! [`parse`] reads the language, [`Bindings`] looks parameters up with the errors a user can act on, and this file
//! knows which parameters make up a model and what the reference uses where a file is silent: the defaults of
//! `train_fn` (train.py), `hstu_encoder`, `sasrec_encoder` (modeling/sequential/encoder_utils.py) and
//! `create_mol_interaction_module` (modeling/similarity_utils.py). GRU4Rec and BERT4Rec, which the reference does not have, take
//! the same form: `gru4rec_encoder`, `bert4rec_encoder` and, for their loss, `FullSoftmaxLoss`.

mod bindings;
mod parse;
mod train;

use std::path::Path;

use super::{
    Bert4recConfig, EmbeddingNorm, EncoderConfig, FfnActivation, GatingCombination, GluConfig, GluNonlinearity,
    Gru4recConfig, HstuConfig, LinearActivation, ModelConfig, MolConfig, OutputConfig, PositionOrder, SasrecConfig,
    SimilarityConfig, TrainConfig,
};
use crate::{Result, input};
use bindings::{Bindings, MAX_BYTES};

/// Parameters that shape training, logging or evaluation, not the model: function, then its parameters.
const NOT_OF_THE_MODEL: [(&str, &str); 8] = [
    (
        "train_fn",
        "rank world_size master_port restore_from_ckpt inference_from_ckpt dataset_name positional_sampling_ratio \
         custom_date_str local_batch_size eval_batch_size eval_user_max_batch_size limit_eval_to_first_n \
         main_module_bf16 eval_bf16 mol_bf16_training dropout_rate sampling_strategy loss_module loss_weights \
         loss_activation_checkpoint num_negatives temperature num_epochs learning_rate num_warmup_steps weight_decay \
         opt_enable_apex top_k_method eval_interval full_eval_every_n save_ckpt_every_n partial_eval_num_iters \
         enable_tf32 random_seed",
    ),
    ("create_data_loader", "num_workers prefetch_factor drop_last"),
    ("get_sequential_encoder", "activation_checkpoint"),
    ("get_similarity_function", "activation_checkpoint bf16_training"),
    ("hstu_encoder", "linear_dropout_rate attn_dropout_rate activation_checkpoint"),
    ("sasrec_encoder", "ffn_dropout_rate activation_checkpoint"),
    ("bert4rec_encoder", "attn_dropout_rate hidden_dropout_rate mask_probability"),
    (
        "create_mol_interaction_module",
        "query_dropout_rate item_dropout_rate gating_item_dropout_rate gating_qi_dropout_rate softmax_dropout_rate \
         uid_dropout_rate uid_embedding_level_dropout uid_embedding_l2_weight_decay bf16_training",
    ),
];

impl ModelConfig {
    /// Reads the hyper-parameters of a model from a `.gin` file of the reference. Parameters that concern only
    /// training are passed over; one that the reference does not know is reported by `log::warn!`.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the file cannot be read or has more than 1 MiB;
    /// [`Error::Config`](crate::Error::Config) with its line if it is not gin, a value has the
    /// wrong type, is out of range or asks for something unsupported, or if a required parameter is missing.
    pub fn from_gin(path: impl AsRef<Path>) -> Result<ModelConfig> {
        let path = path.as_ref();
        ModelConfig::parse_gin(&input::text_up_to(path, MAX_BYTES)?, path)
    }

    /// Reads the same from a text; `path` is only named in errors.
    ///
    /// # Errors
    /// As [`ModelConfig::from_gin`].
    pub fn parse_gin(text: &str, path: impl AsRef<Path>) -> Result<ModelConfig> {
        let path = path.as_ref();
        let mut gin = Bindings::new(path, &parse::parse(path, text)?)?;
        let config = model(&mut gin)?;
        config.check().map_err(|wrong| gin.error(wrong.key, &wrong.expected, wrong.found))?;
        gin.warn_of_unknown(&NOT_OF_THE_MODEL);
        Ok(config)
    }
}

impl TrainConfig {
    /// Reads how to train from the same `.gin` file of the reference that [`ModelConfig::from_gin`] reads, which is the one
    /// to report unknown parameters. What asks for bfloat16 is read as f32, with a `log::warn!`.
    ///
    /// # Errors
    /// As [`ModelConfig::from_gin`].
    pub fn from_gin(path: impl AsRef<Path>) -> Result<TrainConfig> {
        let path = path.as_ref();
        TrainConfig::parse_gin(&input::text_up_to(path, MAX_BYTES)?, path)
    }

    /// Reads the same from a text; `path` is only named in errors.
    ///
    /// # Errors
    /// As [`ModelConfig::from_gin`].
    pub fn parse_gin(text: &str, path: impl AsRef<Path>) -> Result<TrainConfig> {
        let path = path.as_ref();
        let mut gin = Bindings::new(path, &parse::parse(path, text)?)?;
        let config = train::train(&mut gin)?;
        config.check().map_err(|wrong| gin.error(wrong.key, &wrong.expected, wrong.found))?;
        Ok(config)
    }
}

fn model(gin: &mut Bindings) -> Result<ModelConfig> {
    gin.only("train_fn.embedding_module_type", "local")?;
    let module = main_module(gin)?;
    skip_other_encoders(gin, module);
    let is_mol = gin.choice("train_fn.interaction_module_type", "", &[("MoL", true), ("DotProduct", false)])?;
    let norms =
        [("l2_norm", EmbeddingNorm::L2Norm), ("layer_norm", EmbeddingNorm::LayerNorm), ("none", EmbeddingNorm::None)];
    let item_embedding_dim = gin.size("train_fn.item_embedding_dim", Some(240))?;
    Ok(ModelConfig {
        item_embedding_dim,
        max_sequence_length: gin.size("train_fn.max_sequence_length", Some(200))?,
        gr_output_length: gin.size("train_fn.gr_output_length", Some(10))?,
        user_embedding_norm: gin.choice("train_fn.user_embedding_norm", "l2_norm", &norms)?,
        item_l2_norm: gin.flag("train_fn.item_l2_norm", false)?,
        l2_norm_eps: gin.number("train_fn.l2_norm_eps", Some(1e-6))?,
        encoder: match module {
            MainModule::Hstu => hstu(gin)?,
            MainModule::Sasrec => sasrec(gin)?,
            MainModule::Gru4rec => gru4rec(gin, item_embedding_dim)?,
            MainModule::Bert4rec => bert4rec(gin)?,
        },
        similarity: if is_mol { mol(gin)? } else { dot_product(gin) },
        output: OutputConfig::default(),
    })
}

/// The encoders, by `train_fn.main_module`.
#[derive(Clone, Copy, PartialEq)]
enum MainModule {
    Hstu,
    Sasrec,
    Gru4rec,
    Bert4rec,
}

/// Name of the module and of the function that has its parameters.
const ENCODERS: [(&str, &str, MainModule); 4] = [
    ("HSTU", "hstu_encoder", MainModule::Hstu),
    ("SASRec", "sasrec_encoder", MainModule::Sasrec),
    ("GRU4Rec", "gru4rec_encoder", MainModule::Gru4rec),
    ("BERT4Rec", "bert4rec_encoder", MainModule::Bert4rec),
];

fn main_module(gin: &mut Bindings) -> Result<MainModule> {
    gin.choice("train_fn.main_module", "SASRec", &ENCODERS.map(|(name, _, module)| (name, module)))
}

fn skip_other_encoders(gin: &mut Bindings, module: MainModule) {
    let others = ENCODERS.iter().filter(|(_, _, other)| *other != module);
    others.for_each(|(_, function, _)| gin.skip_function(function));
}

fn hstu(gin: &mut Bindings) -> Result<EncoderConfig> {
    gin.only("hstu_encoder.linear_config", "uvqk")?;
    gin.only("hstu_encoder.normalization", "rel_bias")?;
    // Without it the reference itself fails.
    gin.only_flag("hstu_encoder.enable_relative_attention_bias", true)?;
    let activations = [("silu", LinearActivation::Silu), ("none", LinearActivation::None)];
    Ok(EncoderConfig::Hstu(HstuConfig {
        num_blocks: gin.size("hstu_encoder.num_blocks", Some(2))?,
        num_heads: gin.size("hstu_encoder.num_heads", Some(1))?,
        dqk: gin.size("hstu_encoder.dqk", Some(64))?,
        dv: gin.size("hstu_encoder.dv", Some(64))?,
        linear_activation: gin.choice("hstu_encoder.linear_activation", "silu", &activations)?,
        concat_ua: gin.flag("hstu_encoder.concat_ua", false)?,
    }))
}

fn sasrec(gin: &mut Bindings) -> Result<EncoderConfig> {
    let activations = [("relu", FfnActivation::Relu), ("gelu", FfnActivation::Gelu)];
    Ok(EncoderConfig::Sasrec(SasrecConfig {
        num_blocks: gin.size("sasrec_encoder.num_blocks", Some(2))?,
        num_heads: gin.size("sasrec_encoder.num_heads", Some(1))?,
        ffn_hidden_dim: gin.size("sasrec_encoder.ffn_hidden_dim", Some(64))?,
        ffn_activation: gin.choice("sasrec_encoder.ffn_activation_fn", "relu", &activations)?,
    }))
}

/// Defaults are those of torch's `nn.GRU`.
fn gru4rec(gin: &mut Bindings, item_embedding_dim: usize) -> Result<EncoderConfig> {
    Ok(EncoderConfig::Gru4rec(Gru4recConfig {
        num_layers: gin.size("gru4rec_encoder.num_layers", Some(1))?,
        hidden_dim: gin.size("gru4rec_encoder.hidden_dim", Some(item_embedding_dim))?,
        bias: gin.flag("gru4rec_encoder.bias", true)?,
        dense: gin.flag("gru4rec_encoder.dense", false)?,
    }))
}

/// Defaults are those of `BertConfig` of Hugging Face transformers, but for the sizes.
fn bert4rec(gin: &mut Bindings) -> Result<EncoderConfig> {
    let activations = [
        ("gelu", FfnActivation::Gelu),
        ("gelu_tanh", FfnActivation::GeluTanh),
        ("relu", FfnActivation::Relu),
        ("silu", FfnActivation::Silu),
    ];
    Ok(EncoderConfig::Bert4rec(Bert4recConfig {
        num_blocks: gin.size("bert4rec_encoder.num_blocks", Some(2))?,
        num_heads: gin.size("bert4rec_encoder.num_heads", Some(2))?,
        ffn_hidden_dim: gin.size("bert4rec_encoder.ffn_hidden_dim", Some(256))?,
        ffn_activation: gin.choice("bert4rec_encoder.ffn_activation_fn", "gelu", &activations)?,
        norm_first: gin.flag("bert4rec_encoder.norm_first", false)?,
        embedding_norm: gin.flag("bert4rec_encoder.embedding_norm", true)?,
        final_norm: gin.flag("bert4rec_encoder.final_norm", false)?,
        layer_norm_eps: gin.number("bert4rec_encoder.layer_norm_eps", Some(1e-12))?,
        layer_norm_unbiased: false,
        item_scale: 1.0,
        positions: PositionOrder::FromFirst,
        output_head: gin.flag("bert4rec_encoder.output_head", false)?,
    }))
}

fn dot_product(gin: &mut Bindings) -> SimilarityConfig {
    gin.skip_function("create_mol_interaction_module");
    SimilarityConfig::DotProduct
}

fn mol(gin: &mut Bindings) -> Result<SimilarityConfig> {
    macro_rules! key {
        ($name:literal) => {
            concat!("create_mol_interaction_module.", $name)
        };
    }
    // Earlier versions could take the embedding itself as its only component.
    gin.only_flag(key!("query_use_identity_fn"), false)?;
    gin.only_flag(key!("item_use_identity_fn"), false)?;
    let combinations = [
        ("glu_silu", GatingCombination::GluSilu),
        ("glu_silu_ln", GatingCombination::GluSiluLn),
        ("none", GatingCombination::None),
    ];
    Ok(SimilarityConfig::Mol(MolConfig {
        given_components: false,
        query_dot_product_groups: gin.size(key!("query_dot_product_groups"), None)?,
        item_dot_product_groups: gin.size(key!("item_dot_product_groups"), None)?,
        dot_product_dimension: gin.size(key!("dot_product_dimension"), None)?,
        temperature: gin.number(key!("temperature"), None)?,
        dot_product_l2_norm: gin.flag(key!("dot_product_l2_norm"), true)?,
        eps: gin.number(key!("eps"), Some(1e-6))?,
        query_hidden: glu(gin, key!("query_hidden_dim"), key!("query_nonlinearity"))?,
        item_hidden: glu(gin, key!("item_hidden_dim"), key!("item_nonlinearity"))?,
        uid_embedding_hash_sizes: gin.sizes(key!("uid_embedding_hash_sizes"))?,
        gating_combination: gin.choice(key!("gating_combination_type"), "glu_silu", &combinations)?,
        gating_query_hidden_dim: gate_part(gin, key!("gating_query_fn"), key!("gating_query_hidden_dim"))?,
        gating_item_hidden_dim: gate_part(gin, key!("gating_item_fn"), key!("gating_item_hidden_dim"))?,
        gating_qi_hidden_dim: gin.hidden(key!("gating_qi_hidden_dim"))?,
    }))
}

fn glu(gin: &mut Bindings, hidden_dim: &'static str, nonlinearity: &'static str) -> Result<Option<GluConfig>> {
    let nonlinearities = [("geglu", GluNonlinearity::Geglu), ("swiglu", GluNonlinearity::Swiglu)];
    let nonlinearity = gin.choice(nonlinearity, "geglu", &nonlinearities)?;
    Ok(gin.hidden(hidden_dim)?.map(|hidden_dim| GluConfig { hidden_dim, nonlinearity }))
}

fn gate_part(gin: &mut Bindings, exists: &'static str, hidden_dim: &'static str) -> Result<Option<usize>> {
    if gin.flag(exists, true)? {
        return gin.size(hidden_dim, None).map(Some);
    }
    gin.skip_parameter(hidden_dim);
    Ok(None)
}
