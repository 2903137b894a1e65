//! BERT4Rec of jaywonchung/BERT4Rec-VAE-Pytorch.

use super::matrix::{extended, rows_of};
use super::model_config;
use super::reader::Reader;
use crate::Result;
use crate::config::{Bert4recConfig, EncoderConfig, FfnActivation, ModelConfig, OutputConfig, PositionOrder};

const EPS: f32 = 1e-6;

pub(super) fn load(reader: &mut Reader) -> Result<ModelConfig> {
    // Padding is row 0, the mask the last one, as here.
    let items = reader.matrix("bert.embedding.token.weight")?;
    let (rows, dim) = (items.rows(), items.width());
    reader.put("item_embedding.weight", items);
    // Histories are padded on the left, and padding is masked.
    let positions = reader.table("bert.embedding.position.pe.weight", dim)?;
    let length = reader.places(positions.rows(), 1)?;
    let positions = extended(&rows_of(&positions, (0..positions.rows()).rev().map(Some)), length + 1, dim);
    reader.put("position_embedding.weight", positions);

    let num_blocks = reader.count(|block| format!("bert.transformer_blocks.{block}.attention.output_linear.weight"))?;
    let mut ffn_hidden_dim = 0;
    for block in 0..num_blocks {
        let (theirs, ours) = (format!("bert.transformer_blocks.{block}"), format!("blocks.{block}"));
        let inputs = ["0", "1", "2"].map(|part| format!("{theirs}.attention.linear_layers.{part}"));
        reader.attention_inputs(inputs, &format!("{ours}.attention"), dim)?;
        let (output, out_proj) = (format!("{theirs}.attention.output_linear"), format!("{ours}.attention.out_proj"));
        reader.linear(&output, &out_proj, dim, dim)?;
        let layers = ["w_1", "w_2"].map(|layer| format!("{theirs}.feed_forward.{layer}"));
        ffn_hidden_dim = reader.feed_forward(layers, &ours, dim)?;
        for (sublayer, norm) in [("input_sublayer", "attention_norm"), ("output_sublayer", "ffn_norm")] {
            let names = ["a_2", "b_2"].map(|part| format!("{theirs}.{sublayer}.norm.{part}"));
            reader.norm_of([&names[0], &names[1]], &format!("{ours}.{norm}"), dim)?;
        }
    }
    let weight = reader.take("out.weight", &[rows.saturating_sub(1), dim])?;
    let bias = reader.take("out.bias", &[rows.saturating_sub(1)])?;
    reader.put("output.weight", weight);
    reader.put("output.bias", bias);
    let encoder = EncoderConfig::Bert4rec(Bert4recConfig {
        num_blocks,
        num_heads: reader.num_heads(None)?,
        ffn_hidden_dim,
        ffn_activation: reader.activation(None, &[], FfnActivation::GeluTanh)?,
        norm_first: true,
        embedding_norm: false,
        final_norm: false,
        layer_norm_eps: EPS,
        layer_norm_unbiased: true,
        item_scale: 1.0,
        positions: PositionOrder::FromLast,
        output_head: false,
    });
    Ok(model_config(dim, length, encoder, OutputConfig { separate: true, bias: true }))
}
