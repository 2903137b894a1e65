//! Where training drops out elements.

/// A place in a model at which training sets some elements to zero. Each has a rate of its own in the configuration of a training,
/// and random numbers of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropoutSite {
    /// What enters the encoder: item embeddings with their positions.
    Input,
    /// HSTU: what the output projection of a block reads.
    HstuLinear {
        /// Which block.
        block: usize,
    },
    /// SASRec and BERT4Rec: attention probabilities of a block.
    Attention {
        /// Which block.
        block: usize,
    },
    /// SASRec and BERT4Rec: after the activation of the feed-forward part.
    FeedForwardHidden {
        /// Which block.
        block: usize,
    },
    /// SASRec and BERT4Rec: after the second layer of the feed-forward part.
    FeedForwardOutput {
        /// Which block.
        block: usize,
    },
    /// BERT4Rec: after the output projection of an attention.
    AttentionOutput {
        /// Which block.
        block: usize,
    },
    /// MoL: what the query projection reads.
    Query,
    /// MoL: what the item projection reads.
    Item,
    /// MoL: embeddings of a uid table.
    Uid {
        /// Which table.
        table: usize,
    },
    /// MoL: what the item-only part of the gate reads.
    GateItem,
    /// MoL: the logits that the cross part of the gate reads.
    GateCross,
    /// MoL: probabilities of the gate.
    GateSoftmax,
}

impl DropoutSite {
    /// A number below 2^24 that no other site has: with it, the site's random numbers are drawn.
    pub fn number(self) -> u32 {
        let (kind, index) = match self {
            DropoutSite::Input => (0, 0),
            DropoutSite::HstuLinear { block } => (1, block),
            DropoutSite::Attention { block } => (2, block),
            DropoutSite::FeedForwardHidden { block } => (3, block),
            DropoutSite::FeedForwardOutput { block } => (4, block),
            DropoutSite::Query => (5, 0),
            DropoutSite::Item => (6, 0),
            DropoutSite::Uid { table } => (7, table),
            DropoutSite::GateItem => (8, 0),
            DropoutSite::GateCross => (9, 0),
            DropoutSite::GateSoftmax => (10, 0),
            DropoutSite::AttentionOutput { block } => (11, block),
        };
        kind << 16 | index as u32 & 0xffff
    }
}
