//! RecBole 1.2: SASRec, GRU4Rec, BERT4Rec.

use super::matrix::{extended, positions_from_first};
use super::model_config;
use super::reader::Reader;
use crate::Result;
use crate::checkpoint::PickleValue;
use crate::config::{
    BlockNorm, EncoderConfig, FfnActivation, Gru4recConfig, ModelConfig, OutputConfig, Padding, PositionOrder,
    TransformerConfig,
};

/// Its names of activations that exist here, too.
const ACTIVATIONS: [(&str, FfnActivation); 3] =
    [("gelu", FfnActivation::Gelu), ("relu", FfnActivation::Relu), ("swish", FfnActivation::Silu)];

/// Its own default.
const LAYER_NORM_EPS: f32 = 1e-12;

pub(super) fn load(reader: &mut Reader) -> Result<ModelConfig> {
    if reader.has("gru_layers.weight_ih_l0") { gru4rec(reader) } else { transformer(reader) }
}

/// A setting of the pickled `Config`.
fn setting<'a>(reader: &Reader<'a>, name: &str) -> Option<PickleValue<'a>> {
    reader.setting(&["config", "final_config_dict", name])
}

fn gru4rec(reader: &mut Reader) -> Result<ModelConfig> {
    let items = reader.matrix("item_embedding.weight")?;
    let dim = items.width();
    reader.put("item_embedding.weight", items);
    let num_layers = reader.count(|layer| format!("gru_layers.weight_ih_l{layer}"))?;
    let hidden_dim = {
        let first = reader.matrix("gru_layers.weight_hh_l0")?;
        first.width()
    };
    for layer in 0..num_layers {
        let n_in = if layer == 0 { dim } else { hidden_dim };
        for (from, n_in) in [("ih", n_in), ("hh", hidden_dim)] {
            let weight = reader.take(&format!("gru_layers.weight_{from}_l{layer}"), &[3 * hidden_dim, n_in])?;
            reader.put(format!("gru.weight_{from}_l{layer}"), weight);
        }
    }
    reader.linear("dense", "dense", hidden_dim, dim)?;
    let length = reader.max_sequence_length(setting(reader, "MAX_ITEM_LIST_LENGTH"))?;
    let encoder = EncoderConfig::Gru4rec(Gru4recConfig { num_layers, hidden_dim, bias: false, dense: true });
    Ok(model_config(dim, length, encoder, OutputConfig::default()))
}

fn transformer(reader: &mut Reader) -> Result<ModelConfig> {
    let is_bert = reader.has("output_bias");
    if !is_bert && setting(reader, "model").and_then(PickleValue::text) == Some("BERT4Rec") {
        let what = "it is a BERT4Rec of RecBole before its output layer, another model than that of RecBole 1.2.1";
        return Err(reader.unsupported(what, "train it with RecBole 1.2.1"));
    }
    let items = reader.matrix("item_embedding.weight")?;
    let (rows, dim) = (items.rows(), items.width());
    reader.put("item_embedding.weight", items);
    let positions = reader.table("position_embedding.weight", dim)?;
    let length = reader.places(positions.rows(), usize::from(is_bert))?;
    let positions = extended(&positions_from_first(&positions), length + 1, dim);
    reader.put("position_embedding.weight", positions);
    reader.norm("LayerNorm", "embedding_norm", dim)?;

    let num_blocks = reader.count(|block| format!("trm_encoder.layer.{block}.multi_head_attention.query.weight"))?;
    let mut ffn_hidden_dim = 0;
    for block in 0..num_blocks {
        let (theirs, ours) = (format!("trm_encoder.layer.{block}"), format!("blocks.{block}"));
        let attention = format!("{theirs}.multi_head_attention");
        let inputs = ["query", "key", "value"].map(|part| format!("{attention}.{part}"));
        reader.attention_inputs(inputs, &format!("{ours}.attention"), dim)?;
        reader.linear(&format!("{attention}.dense"), &format!("{ours}.attention.out_proj"), dim, dim)?;
        reader.norm(&format!("{attention}.LayerNorm"), &format!("{ours}.attention_norm"), dim)?;
        let layers = ["dense_1", "dense_2"].map(|layer| format!("{theirs}.feed_forward.{layer}"));
        ffn_hidden_dim = reader.feed_forward(layers, &ours, dim)?;
        reader.norm(&format!("{theirs}.feed_forward.LayerNorm"), &format!("{ours}.ffn_norm"), dim)?;
    }
    if is_bert {
        reader.linear("output_ffn", "head.dense", dim, dim)?;
        reader.norm("output_ln", "head.norm", dim)?;
        let bias = reader.take("output_bias", &[rows.saturating_sub(1)])?;
        reader.put("output.bias", bias);
    }
    let eps = setting(reader, "layer_norm_eps").and_then(PickleValue::float).map_or(LAYER_NORM_EPS, |eps| eps as f32);
    let encoder = EncoderConfig::Transformer(TransformerConfig {
        num_blocks,
        num_heads: reader.num_heads(setting(reader, "n_heads"))?,
        ffn_hidden_dim,
        ffn_activation: reader.activation(setting(reader, "hidden_act"), &ACTIVATIONS, FfnActivation::Gelu)?,
        block_norm: BlockNorm::Post,
        causal: !is_bert,
        mask_token: is_bert,
        drops_first_event: is_bert,
        padding: Padding::None,
        embedding_norm: true,
        final_norm: false,
        layer_norm_eps: eps,
        final_norm_eps: eps,
        layer_norm_unbiased: false,
        item_scale: 1.0,
        positions: PositionOrder::FromFirst,
        output_head: is_bert,
    });
    Ok(model_config(dim, length, encoder, OutputConfig { separate: false, bias: is_bert }))
}
