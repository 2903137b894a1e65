//! gSASRec of asash/gSASRec-pytorch.

use super::matrix::{extended, identity, positions_from_last, zeros};
use super::model_config;
use super::reader::Reader;
use crate::Result;
use crate::config::{
    BlockNorm, EncoderConfig, FfnActivation, ModelConfig, OutputConfig, Padding, PositionOrder, TransformerConfig,
};

/// Eps of torch's layer norms.
const EPS: f32 = 1e-5;

pub(super) fn load(reader: &mut Reader) -> Result<ModelConfig> {
    // Items, between row 0, which is nothing, and the last row, which is that of padding.
    let items = reader.matrix("item_embedding.weight")?;
    let dim = items.width();
    let items = extended(&items, items.rows() - 1, dim);
    reader.put("item_embedding.weight", items);
    // Histories are padded on the left, and padding is masked.
    let positions = reader.table("position_embedding.weight", dim)?;
    let length = reader.places(positions.rows(), 0)?;
    let positions = extended(&positions_from_last(&positions), length + 1, dim);
    reader.put("position_embedding.weight", positions);

    let num_blocks = reader.count(|block| format!("transformer_blocks.{block}.first_norm.weight"))?;
    let mut ffn_hidden_dim = 0;
    for block in 0..num_blocks {
        let (theirs, ours) = (format!("transformer_blocks.{block}"), format!("blocks.{block}"));
        let inputs = ["query", "key", "val"].map(|part| format!("{theirs}.multihead_attention.{part}_proj"));
        reader.attention_inputs(inputs, &format!("{ours}.attention"), dim)?;
        // There is no layer behind the heads.
        reader.put(format!("{ours}.attention.out_proj.weight"), identity(dim));
        reader.put(format!("{ours}.attention.out_proj.bias"), zeros(dim));
        reader.norm(&format!("{theirs}.first_norm"), &format!("{ours}.attention_norm"), dim)?;
        reader.norm(&format!("{theirs}.second_norm"), &format!("{ours}.ffn_norm"), dim)?;
        let layers = ["dense1", "dense2"].map(|layer| format!("{theirs}.{layer}"));
        ffn_hidden_dim = reader.feed_forward(layers, &ours, dim)?;
    }
    reader.norm("seq_norm", "final_norm", dim)?;
    let encoder = EncoderConfig::Transformer(TransformerConfig {
        num_blocks,
        num_heads: reader.num_heads(None)?,
        ffn_hidden_dim,
        ffn_activation: reader.activation(None, &[], FfnActivation::Identity)?,
        block_norm: BlockNorm::Query,
        causal: true,
        mask_token: false,
        drops_first_event: false,
        padding: Padding::None,
        embedding_norm: false,
        final_norm: true,
        layer_norm_eps: EPS,
        final_norm_eps: EPS,
        layer_norm_unbiased: false,
        item_scale: 1.0,
        positions: PositionOrder::FromLast,
        output_head: false,
    });
    Ok(model_config(dim, length, encoder, OutputConfig::default()))
}
