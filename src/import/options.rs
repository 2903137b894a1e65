//! What is known of a checkpoint beside what it says itself.

use std::path::Path;

use super::source::Source;
use crate::config::{BlockNorm, EncoderConfig, FfnActivation, ModelConfig, TransformerConfig};
use crate::{Error, Result};

/// What is known of a checkpoint of another program beside what it says itself. What is given overrules what the file says.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ImportOptions {
    /// The program; `None`: the one that writes tensors of such names.
    pub source: Option<Source>,
    /// Attention heads.
    pub num_heads: Option<usize>,
    /// Activation of the feed-forward part.
    pub activation: Option<FfnActivation>,
    /// Where the layer norms of a block are.
    pub block_norm: Option<BlockNorm>,
    /// Longest history that the model sees, without a mask token.
    pub max_sequence_length: Option<usize>,
}

impl ImportOptions {
    /// With a program.
    pub fn with_source(self, source: Option<Source>) -> ImportOptions {
        ImportOptions { source, ..self }
    }

    /// With a number of attention heads.
    pub fn with_num_heads(self, num_heads: Option<usize>) -> ImportOptions {
        ImportOptions { num_heads, ..self }
    }

    /// With an activation of the feed-forward part.
    pub fn with_activation(self, activation: Option<FfnActivation>) -> ImportOptions {
        ImportOptions { activation, ..self }
    }

    /// With a place of the layer norms.
    pub fn with_block_norm(self, block_norm: Option<BlockNorm>) -> ImportOptions {
        ImportOptions { block_norm, ..self }
    }

    /// With a longest history.
    pub fn with_max_sequence_length(self, max_sequence_length: Option<usize>) -> ImportOptions {
        ImportOptions { max_sequence_length, ..self }
    }

    /// The other program, if one is named.
    pub(crate) fn other_program(&self) -> Option<Source> {
        self.source.filter(|source| *source != Source::Rails)
    }

    /// What is said of transformers only: the option and its value.
    fn of_transformers(&self) -> Option<(&'static str, String)> {
        let heads = self.num_heads.map(|n| ("num-heads", n.to_string()));
        let activation = self.activation.map(|activation| ("activation", activation.to_string()));
        let block_norm = self.block_norm.map(|block_norm| ("block-norm", block_norm.to_string()));
        heads.or(activation).or(block_norm)
    }

    /// Fails if anything is said about the file `path`, which is of no other program or a similarity alone.
    pub(crate) fn check_none(&self, path: &Path) -> Result<()> {
        if let Some(source) = self.other_program() {
            let expected = format!("rails or nothing, as {} is a similarity alone", path.display());
            return Err(Error::argument("from", expected, source));
        }
        let length = self.max_sequence_length.map(|length| ("max-sequence-length", length.to_string()));
        let Some((option, found)) = self.of_transformers().or(length) else { return Ok(()) };
        let expected = format!(
            "nothing, as {} has hyper-parameters, inside or in a .gin file, or is a similarity alone (if another program has \
             written it, name that with --from)",
            path.display()
        );
        Err(Error::argument(option, expected, found))
    }

    /// Fails if something is said that the model of `source` with these hyper-parameters does not have.
    pub(super) fn check_used(&self, source: Source, config: &ModelConfig) -> Result<()> {
        let norm = match &config.encoder {
            EncoderConfig::Transformer(transformer) => transformer.block_norm,
            EncoderConfig::Bert4rec(bert) => TransformerConfig::from(bert).block_norm,
            _ => {
                return self.of_transformers().map_or(Ok(()), |(option, found)| {
                    Err(Error::argument(option, format!("nothing, as this model of {source} is no transformer"), found))
                });
            }
        };
        match self.block_norm {
            Some(other) if other != norm => Err(Error::argument(
                "block-norm",
                format!("{norm} or nothing, as this model of {source} has it"),
                other,
            )),
            _ => Ok(()),
        }
    }
}
