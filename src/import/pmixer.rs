//! SASRec of pmixer/SASRec.pytorch: the earliest version, the one that got a position for padding, and those that took up norms around
//! their parts; and the copy of the earliest in antklen/sasrec-bert4rec-recsys23, which pads histories on the other side.

use super::matrix::{extended, positions_from_first, positions_from_last, rows_of};
use super::model_config;
use super::reader::Reader;
use crate::config::{
    BlockNorm, EncoderConfig, FfnActivation, ModelConfig, OutputConfig, Padding, PositionOrder, TransformerConfig,
};
use crate::tensor::Tensor;
use crate::{Error, Result};

const EPS: f32 = 1e-8;

/// Where padding stands.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Side {
    /// Before the history.
    Left,
    /// Behind it.
    Right,
}

/// Whether the first row of a table of positions is that of padding, which has no embedding: later versions have such a row.
pub(super) fn has_position_of_padding(positions: &Tensor) -> bool {
    positions.rows() > 1 && positions.row(0).iter().all(|&value| value == 0.0)
}

pub(super) fn load(reader: &mut Reader, side: Side) -> Result<ModelConfig> {
    let items = reader.matrix("item_emb.weight")?;
    let dim = items.width();
    reader.put("item_embedding.weight", items);
    let table = reader.table("pos_emb.weight", dim)?;
    let asked = reader.options.max_sequence_length;
    let is_later = match asked {
        Some(asked) if side == Side::Left && asked + 1 == table.rows() => true,
        Some(asked) if side == Side::Left && asked == table.rows() => false,
        Some(asked) if side == Side::Left => {
            let expected = format!("{} (`maxlen` of the earliest version) or one less (of later ones)", table.rows());
            return Err(Error::argument("max-sequence-length", expected, asked));
        }
        _ => side == Side::Left && has_position_of_padding(&table),
    };
    let length = if is_later { table.rows() - 1 } else { reader.places(table.rows(), 0)? };
    let positions = match side {
        // Places are 1 to maxlen, the last one of the last event; that of padding, 0, is the last row here.
        Side::Left if is_later => rows_of(&table, (0..table.rows()).rev().map(Some)),
        Side::Left => positions_from_last(&table),
        Side::Right => extended(&positions_from_first(&table), length + 1, dim),
    };
    reader.put("position_embedding.weight", positions);

    let num_blocks = reader.count(|block| format!("attention_layernorms.{block}.weight"))?;
    for block in 0..num_blocks {
        let ours = format!("blocks.{block}");
        reader.norm(&format!("attention_layernorms.{block}"), &format!("{ours}.attention_norm"), dim)?;
        reader.multi_head_attention(&format!("attention_layers.{block}"), &format!("{ours}.attention"), dim)?;
        reader.norm(&format!("forward_layernorms.{block}"), &format!("{ours}.ffn_norm"), dim)?;
        for (theirs, ours_layer) in [("conv1", "ffn.0"), ("conv2", "ffn.1")] {
            reader.convolution(
                &format!("forward_layers.{block}.{theirs}"),
                &format!("{ours}.{ours_layer}"),
                dim,
                dim,
            )?;
        }
    }
    reader.norm("last_layernorm", "final_norm", dim)?;
    let block_norm = match (is_later, reader.options.block_norm) {
        (true, Some(norm)) => norm,
        (true, None) => {
            let expected = "pre (--block-norm; trained with `--norm_first`), post (without), or query (by a version that did not have \
                            this option yet): `pos_emb.weight` has a row for padding, so this is a later version of pmixer's program";
            return Err(Error::argument("block-norm", expected, "nothing"));
        }
        (false, None | Some(BlockNorm::Query)) => BlockNorm::Query,
        (false, Some(other)) => {
            let expected = "query or nothing: `pos_emb.weight` has no row for padding, so this is the earliest version";
            return Err(Error::argument("block-norm", expected, other));
        }
    };
    let encoder = EncoderConfig::Transformer(TransformerConfig {
        num_blocks,
        num_heads: reader.num_heads(None)?,
        ffn_hidden_dim: dim,
        ffn_activation: reader.activation(None, &[], FfnActivation::Relu)?,
        block_norm,
        causal: true,
        mask_token: false,
        drops_first_event: false,
        padding: match side {
            Side::Left if is_later => Padding::Embedded,
            Side::Left => Padding::Zeros,
            Side::Right => Padding::None,
        },
        embedding_norm: false,
        final_norm: true,
        layer_norm_eps: EPS,
        final_norm_eps: EPS,
        layer_norm_unbiased: false,
        item_scale: (dim as f32).sqrt(),
        positions: if side == Side::Left { PositionOrder::FromLast } else { PositionOrder::FromFirst },
        output_head: false,
    });
    Ok(model_config(dim, length, encoder, OutputConfig::default()))
}
