//! Which program has written a checkpoint.

use super::pmixer::has_position_of_padding;
use super::reader::LIGHTNING;
use super::source::Source;
use crate::checkpoint::Checkpoint;
use crate::error::Parameter;
use crate::{Error, Result};

/// For each program, tensors that all its models of one kind have and no other program's.
const MARKS: [(Source, &[&str]); 10] = [
    (Source::Recbole, &["item_embedding.weight", "trm_encoder.layer.0.multi_head_attention.query.weight"]),
    (Source::Recbole, &["item_embedding.weight", "gru_layers.weight_ih_l0"]),
    (Source::Rectools, &["torch_model.item_model.item_net_blocks.0.ids_emb.weight"]),
    (Source::Gsasrec, &["item_embedding.weight", "transformer_blocks.0.multihead_attention.query_proj.weight"]),
    (Source::Gru4rec, &["Wy.weight", "By.weight"]),
    (Source::Bert4recVae, &["bert.embedding.token.weight", "bert.embedding.position.pe.weight"]),
    (Source::Hf, &["embed_layer.weight", "transformer_model.embeddings.position_embeddings.weight"]),
    (Source::Hf, &["model.embed_layer.weight", "model.transformer_model.embeddings.position_embeddings.weight"]),
    (Source::Hf, &["embed_layer.weight", "rnn.weight_ih_l0"]),
    (Source::Hf, &["model.embed_layer.weight", "model.rnn.weight_ih_l0"]),
];

/// The program whose tensors have such names.
///
/// # Errors
/// [`Error::Argument`] if it may be one of two.
pub(super) fn recognise(checkpoint: &Checkpoint) -> Result<Option<Source>> {
    let has = |name: &str| checkpoint.shape(name).is_some();
    let marked = MARKS.iter().find(|(_, names)| names.iter().all(|name| has(name))).map(|(source, _)| *source);
    let of_sasrec = |prefix: &str| {
        let names = ["item_emb.weight", "pos_emb.weight", "attention_layernorms.0.weight"];
        names.iter().all(|name| has(&format!("{prefix}{name}")))
    };
    if marked.is_some() {
        return Ok(marked);
    }
    if of_sasrec(LIGHTNING) {
        return Ok(Some(Source::Hf));
    }
    if !of_sasrec("") {
        return Ok(None);
    }
    // Position 0 is that of padding in one program only, and has no embedding there.
    if has_position_of_padding(&checkpoint.tensor("pos_emb.weight")?) {
        return Ok(Some(Source::Pmixer));
    }
    let expected = "--from pmixer (histories were padded on the left) or --from hf (on the right): two programs write tensors of these \
                    names";
    Err(Error::argument(Parameter::Named("from"), expected, format!("none, for {}", checkpoint.path().display())))
}
