//! What is known of a checkpoint beside what it says itself.

use super::source::Source;
use crate::config::{BlockNorm, FfnActivation};

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
}
