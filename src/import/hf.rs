//! Models of antklen/sasrec-bert4rec-recsys23: BERT4Rec on Hugging Face's `BertModel`, SASRec, and GRU4Rec on torch's `nn.GRU`.

use super::matrix::{extended, made, rows_of};
use super::reader::{LIGHTNING, Reader};
use super::{model_config, pmixer};
use crate::Result;
use crate::config::{
    Bert4recConfig, EncoderConfig, FfnActivation, Gru4recConfig, ModelConfig, OutputConfig, PositionOrder,
};
use crate::tensor::Tensor;

/// `layer_norm_eps` of `BertConfig`, unless it is changed.
const EPS: f32 = 1e-12;

pub(super) fn load(reader: &mut Reader) -> Result<ModelConfig> {
    if reader.has_prefix(LIGHTNING) {
        reader.set_prefix(LIGHTNING);
    }
    if reader.has("item_emb.weight") {
        pmixer::load(reader, pmixer::Side::Right)
    } else if reader.has("rnn.weight_ih_l0") {
        gru4rec(reader)
    } else {
        bert4rec(reader)
    }
}

/// The output layer's table of items, where it is another one than that of the input.
fn head(reader: &mut Reader, items: &Tensor) -> Result<Option<Tensor>> {
    if !reader.has("head.weight") {
        return Ok(None);
    }
    let head = reader.matrix("head.weight")?;
    Ok((head != *items).then_some(head))
}

fn gru4rec(reader: &mut Reader) -> Result<ModelConfig> {
    let items = reader.matrix("embed_layer.weight")?;
    let (rows, dim) = (items.rows(), items.width());
    let head = head(reader, &items)?;
    let num_layers = reader.count(|layer| format!("rnn.weight_ih_l{layer}"))?;
    let hidden_dim = reader.matrix("rnn.weight_hh_l0")?.width();
    if head.as_ref().map_or(dim, Tensor::width) != hidden_dim || head.as_ref().is_some_and(|head| head.rows() != rows) {
        let what = "its states are not as wide as the items that they are compared with";
        return Err(reader.unsupported(what, "save the weights of a trained model"));
    }
    let bias = reader.has("rnn.bias_ih_l0");
    // Both tables have one width; the narrower one is filled up with zeros.
    let width = dim.max(hidden_dim);
    reader.put("item_embedding.weight", extended(&items, rows, width));
    if let Some(head) = &head {
        reader.put("output.weight", extended(head, rows, width));
    }
    for layer in 0..num_layers {
        let (n_in, wide) = if layer == 0 { (dim, width) } else { (hidden_dim, hidden_dim) };
        let weight = reader.take(&format!("rnn.weight_ih_l{layer}"), &[3 * hidden_dim, n_in])?;
        reader.put(format!("gru.weight_ih_l{layer}"), extended(&weight, 3 * hidden_dim, wide));
        let weight = reader.take(&format!("rnn.weight_hh_l{layer}"), &[3 * hidden_dim, hidden_dim])?;
        reader.put(format!("gru.weight_hh_l{layer}"), weight);
        for from in ["ih", "hh"].iter().filter(|_| bias) {
            let bias = reader.take(&format!("rnn.bias_{from}_l{layer}"), &[3 * hidden_dim])?;
            reader.put(format!("gru.bias_{from}_l{layer}"), bias);
        }
    }
    let dense = width != hidden_dim;
    if dense {
        reader.put("dense.weight", made(width, hidden_dim, |row, column| f32::from(u8::from(row == column))));
        reader.put("dense.bias", Tensor::trusted(vec![width], vec![0.0; width]));
    }
    let length = reader.max_sequence_length(None)?;
    let encoder = EncoderConfig::Gru4rec(Gru4recConfig { num_layers, hidden_dim, bias, dense });
    Ok(model_config(width, length, encoder, OutputConfig { separate: head.is_some(), bias: false }))
}

fn bert4rec(reader: &mut Reader) -> Result<ModelConfig> {
    // Padding is row 0 and the mask row 1; the item with the id i of the data is row i + 1, and row i here.
    let items = reader.matrix("embed_layer.weight")?;
    let (rows, dim) = (items.rows(), items.width());
    let order = |mask: bool| [0].into_iter().chain(2..rows).chain([1].into_iter().filter(move |_| mask)).map(Some);
    if rows < 3 {
        return Err(
            reader.unsupported("its item table has no row behind those of padding and mask", "save a trained model")
        );
    }
    let head = head(reader, &items)?;
    if let Some(head) = &head {
        if head.shape() != items.shape() {
            return Err(
                reader.unsupported("`head.weight` and `embed_layer.weight` differ in shape", "save a trained model")
            );
        }
        reader.put("output.weight", rows_of(head, order(false)));
    }
    reader.put("item_embedding.weight", rows_of(&items, order(true)));

    // Every token is of the first type.
    let embeddings = "transformer_model.embeddings";
    let positions = reader.table(&format!("{embeddings}.position_embeddings.weight"), dim)?;
    let types = reader.table(&format!("{embeddings}.token_type_embeddings.weight"), dim)?;
    let length = reader.places(positions.rows(), 1)?;
    let positions = made(length + 1, dim, |row, column| positions.row(row)[column] + types.row(0)[column]);
    reader.put("position_embedding.weight", positions);
    reader.norm(&format!("{embeddings}.LayerNorm"), "embedding_norm", dim)?;
    for unused in
        ["embeddings.word_embeddings.weight", "embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"]
    {
        reader.ignore(&format!("transformer_model.{unused}"))?;
    }

    let layers = "transformer_model.encoder.layer";
    let num_blocks = reader.count(|block| format!("{layers}.{block}.attention.self.query.weight"))?;
    let mut ffn_hidden_dim = 0;
    for block in 0..num_blocks {
        let (theirs, ours) = (format!("{layers}.{block}"), format!("blocks.{block}"));
        let inputs = ["query", "key", "value"].map(|part| format!("{theirs}.attention.self.{part}"));
        reader.attention_inputs(inputs, &format!("{ours}.attention"), dim)?;
        let attention = format!("{theirs}.attention.output");
        reader.linear(&format!("{attention}.dense"), &format!("{ours}.attention.out_proj"), dim, dim)?;
        reader.norm(&format!("{attention}.LayerNorm"), &format!("{ours}.attention_norm"), dim)?;
        let feed_forward = ["intermediate", "output"].map(|layer| format!("{theirs}.{layer}.dense"));
        ffn_hidden_dim = reader.feed_forward(feed_forward, &ours, dim)?;
        reader.norm(&format!("{theirs}.output.LayerNorm"), &format!("{ours}.ffn_norm"), dim)?;
    }
    let encoder = EncoderConfig::Bert4rec(Bert4recConfig {
        num_blocks,
        num_heads: reader.num_heads(None)?,
        ffn_hidden_dim,
        ffn_activation: reader.activation(None, &[], FfnActivation::Gelu)?,
        norm_first: false,
        embedding_norm: true,
        final_norm: false,
        layer_norm_eps: EPS,
        layer_norm_unbiased: false,
        item_scale: 1.0,
        positions: PositionOrder::FromFirst,
        output_head: false,
    });
    Ok(model_config(dim, length, encoder, OutputConfig { separate: head.is_some(), bias: false }))
}
