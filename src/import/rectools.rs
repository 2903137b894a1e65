//! RecTools 0.19: SASRec and BERT4Rec, as Lightning's checkpoints of its models.

use super::matrix::{extended, rows_of};
use super::model_config;
use super::reader::Reader;
use crate::Result;
use crate::checkpoint::PickleValue;
use crate::config::{
    BlockNorm, EncoderConfig, FfnActivation, ModelConfig, OutputConfig, Padding, PositionOrder, TransformerConfig,
};

/// Eps of torch's layer norms, and that of the one after the blocks of its SASRec.
const LAYER_NORM_EPS: f32 = 1e-5;
const FINAL_NORM_EPS: f32 = 1e-8;

/// Where `SASRecModel` and `BERT4RecModel` have other settings than these, the model is another one.
const FIX: &str = "only models with RecTools' own layers, positions and items, and a dot product, are read";

/// A setting of the model.
fn setting<'a>(reader: &Reader<'a>, name: &str) -> Option<PickleValue<'a>> {
    reader.setting(&["hyper_parameters", "model_config", name])
}

pub(super) fn load(reader: &mut Reader) -> Result<ModelConfig> {
    reader.set_prefix("torch_model.");
    let flag = |reader: &Reader, name: &str| setting(reader, name).and_then(PickleValue::bool);
    // The program saves them always; they tell SASRec from BERT4Rec.
    let (Some(causal), Some(masks_padding)) = (flag(reader, "use_causal_attn"), flag(reader, "use_key_padding_mask"))
    else {
        let fix = "save it with `model.fit_trainer.save_checkpoint(path)`, which keeps the hyper-parameters";
        return Err(reader.unsupported("holds no `hyper_parameters` of RecTools", fix));
    };
    if reader.has_prefix("torch_model.item_model.item_net_blocks.1.") {
        return Err(reader.unsupported("its items have embeddings of features, too", FIX));
    }
    let distance = setting(reader, "similarity_module_kwargs").and_then(|all| all.get("distance"));
    if distance.is_some_and(|distance| distance.text() != Some("dot")) {
        return Err(reader.unsupported("its similarity is the cosine", FIX));
    }
    let scales = setting(reader, "pos_encoding_kwargs").and_then(|all| all.get("use_scale_factor"));
    let scales = scales.and_then(PickleValue::bool).unwrap_or(false);
    let is_sasrec = reader.has("transformer_layers.transformer_blocks.0.q_layer_norm.weight");
    let extra_tokens =
        reader.setting(&["hyper_parameters", "item_extra_tokens"]).map_or(0, |tokens| tokens.items().len());
    let mask_token = match extra_tokens {
        1 => false,
        2 => true,
        n => return Err(reader.unsupported(format!("it has {n} extra tokens, not PAD, or PAD and MASK"), FIX)),
    };
    if !masks_padding && !is_sasrec {
        return Err(reader.unsupported("it attends to padding that is not zero (use_key_padding_mask = False)", FIX));
    }

    // PAD is row 0; MASK, if any, row 1 there and the last row here.
    let items = reader.matrix("item_model.item_net_blocks.0.ids_emb.weight")?;
    let (rows, dim) = (items.rows(), items.width());
    if rows <= extra_tokens {
        return Err(reader.unsupported("its item table has no row behind those of its tokens", "save a trained model"));
    }
    let order = (0..1).chain(extra_tokens..rows).chain(1..extra_tokens).map(Some);
    let items = rows_of(&items, order);
    reader.put("item_embedding.weight", items);
    if let Some(ids) = reader.setting(&["hyper_parameters", "item_external_ids"]) {
        match ids.array_of_names() {
            Some(names) if names.len() == rows => reader.item_names = Some(names[extra_tokens..].to_vec()),
            Some(names) => {
                let what = format!("it has {} external ids for {rows} rows of the item table", names.len());
                return Err(reader.unsupported(what, "save it again"));
            }
            None => log::warn!(
                "{}: its `item_external_ids` are not texts or whole numbers of 64 bits and are left out: items are rows of its table",
                reader.path().display()
            ),
        }
    }

    // Positions are counted from the last already.
    let reserved = usize::from(mask_token);
    let length = match reader.has("pos_encoding_layer.pos_emb.weight") {
        true => {
            let positions = reader.table("pos_encoding_layer.pos_emb.weight", dim)?;
            let length = reader.places(positions.rows(), reserved)?;
            let positions = extended(&positions, length + 1, dim);
            reader.put("position_embedding.weight", positions);
            length
        }
        false => {
            let places = reader.max_sequence_length(setting(reader, "session_max_len"))?;
            let length = reader.places(places, reserved)?;
            reader.check_size(length.saturating_add(1), dim)?;
            reader.put("position_embedding.weight", super::matrix::made(length + 1, dim, |_, _| 0.0));
            length
        }
    };

    let blocks = "transformer_layers.transformer_blocks";
    let num_blocks = reader.count(|block| format!("{blocks}.{block}.multi_head_attn.in_proj_weight"))?;
    let norms = if is_sasrec { ["q_layer_norm", "ff_layer_norm"] } else { ["layer_norm_1", "layer_norm_2"] };
    let mut ffn_hidden_dim = 0;
    for block in 0..num_blocks {
        let (theirs, ours) = (format!("{blocks}.{block}"), format!("blocks.{block}"));
        reader.multi_head_attention(&format!("{theirs}.multi_head_attn"), &format!("{ours}.attention"), dim)?;
        let layers = ["ff_linear_1", "ff_linear_2"].map(|layer| format!("{theirs}.feed_forward.{layer}"));
        ffn_hidden_dim = reader.feed_forward(layers, &ours, dim)?;
        for (theirs_norm, ours_norm) in norms.iter().zip(["attention_norm", "ffn_norm"]) {
            reader.norm(&format!("{theirs}.{theirs_norm}"), &format!("{ours}.{ours_norm}"), dim)?;
        }
    }
    if is_sasrec {
        reader.norm("transformer_layers.last_layernorm", "final_norm", dim)?;
    }
    let usual = if is_sasrec { FfnActivation::Relu } else { FfnActivation::Gelu };
    let encoder = EncoderConfig::Transformer(TransformerConfig {
        num_blocks,
        num_heads: reader.num_heads(setting(reader, "n_heads"))?,
        ffn_hidden_dim,
        ffn_activation: reader.activation(None, &[], usual)?,
        block_norm: if is_sasrec { BlockNorm::Query } else { BlockNorm::Pre },
        causal,
        mask_token,
        drops_first_event: false,
        padding: if masks_padding { Padding::None } else { Padding::Zeros },
        embedding_norm: false,
        final_norm: is_sasrec,
        layer_norm_eps: LAYER_NORM_EPS,
        final_norm_eps: FINAL_NORM_EPS,
        layer_norm_unbiased: false,
        item_scale: if scales { (dim as f32).sqrt() } else { 1.0 },
        positions: PositionOrder::FromLast,
        output_head: false,
    });
    Ok(model_config(dim, length, encoder, OutputConfig::default()))
}
