//! A sequence encoder: item and position embeddings, the layers, and the output normalisation.

use crate::Result;
use crate::checkpoint::Weights;
use crate::config::{EmbeddingNorm, EncoderConfig, ModelConfig};
use crate::model::{Hstu, Sasrec, Tap};
use crate::ops::{DropoutSite, Ops, Rows};
use crate::sequence::SequenceBatch;
use crate::tensor::Tensor;

/// Eps of the output normalisation, in both of its forms; the reference fixes it.
const OUTPUT_EPS: f32 = 1e-6;

/// Weights of an encoder, wherever `T` keeps them.
#[derive(Clone, Debug)]
pub struct Encoder<T> {
    /// (item rows, D): item embeddings.
    pub items: T,
    /// (N, D): position embeddings.
    pub positions: T,
    /// The layers.
    pub layers: EncoderLayers<T>,
    /// D: width of embeddings.
    pub dim: usize,
    /// Output normalisation.
    pub norm: EmbeddingNorm,
}

/// Layers of one of the supported encoders.
#[derive(Clone, Debug)]
pub enum EncoderLayers<T> {
    /// See [`Hstu`].
    Hstu(Hstu<T>),
    /// See [`Sasrec`].
    Sasrec(Sasrec<T>),
}

impl Encoder<Tensor> {
    /// Reads the encoder's tensors.
    ///
    /// # Errors
    /// As [`crate::model::Model::load`].
    pub fn load(weights: &mut Weights, config: &ModelConfig) -> Result<Encoder<Tensor>> {
        let dim = config.item_embedding_dim;
        let item_table = "_embedding_module._item_emb.weight";
        let n_item_rows = weights.rows(item_table)?;
        Ok(Encoder {
            items: weights.take(item_table, &[n_item_rows, dim])?,
            positions: weights.take("_input_features_preproc._pos_emb.weight", &[config.padded_length(), dim])?,
            layers: match &config.encoder {
                EncoderConfig::Hstu(hstu) => {
                    EncoderLayers::Hstu(Hstu::load(weights, hstu, dim, config.padded_length())?)
                }
                EncoderConfig::Sasrec(sasrec) => EncoderLayers::Sasrec(Sasrec::load(weights, sasrec, dim)?),
            },
            dim,
            norm: config.user_embedding_norm,
        })
    }
}

impl<T> Encoder<T> {
    /// The same encoder with its arrays elsewhere.
    pub fn map<U>(&self, f: &mut impl FnMut(&T) -> U) -> Encoder<U> {
        Encoder {
            items: f(&self.items),
            positions: f(&self.positions),
            layers: match &self.layers {
                EncoderLayers::Hstu(hstu) => EncoderLayers::Hstu(hstu.map(f)),
                EncoderLayers::Sasrec(sasrec) => EncoderLayers::Sasrec(sasrec.map(f)),
            },
            dim: self.dim,
            norm: self.norm,
        }
    }

    /// (B, D): the query embedding of each sequence, from the state after its last event.
    pub fn forward<O: Ops<Floats = T>>(&self, ops: &mut O, batch: &SequenceBatch, tap: Tap<O>) -> T {
        let ids = ops.ints(&batch.item_ids);
        let states = self.states(ops, &self.items, &ids, batch, tap);
        let last_rows = ops.ints(&batch.last_rows());
        let last = ops.gather(&states, self.dim, &last_rows, batch.len());
        self.normalised(ops, &last, batch.len())
    }

    /// (R, D): the query embedding after each event of each sequence, which training asks for. `items` is a table of the item
    /// embeddings, or of those that the batch needs, and `ids` (R) are its rows that belong to the events.
    pub fn forward_all<O: Ops<Floats = T>>(&self, ops: &mut O, items: &T, ids: &O::Ints, batch: &SequenceBatch) -> T {
        let states = self.states(ops, items, ids, batch, &mut |_, _, _| {});
        self.normalised(ops, &states, batch.n_rows())
    }

    /// (R, D): what the layers make of each event of each sequence.
    fn states<O: Ops<Floats = T>>(
        &self,
        ops: &mut O,
        items: &T,
        ids: &O::Ints,
        batch: &SequenceBatch,
        tap: Tap<O>,
    ) -> T {
        let rows =
            Rows { n_rows: batch.n_rows(), max_length: batch.max_length(), start: ops.ints(&batch.row_starts()) };
        let x = ops.embed(items, &self.positions, self.dim, (self.dim as f32).sqrt(), ids, &rows);
        tap("preproc_out", &x, self.dim);
        let x = ops.dropout(&x, rows.n_rows, self.dim, DropoutSite::Input);
        match &self.layers {
            EncoderLayers::Hstu(hstu) => hstu.forward(ops, x, self.dim, batch, &rows, tap),
            EncoderLayers::Sasrec(sasrec) => sasrec.forward(ops, x, self.dim, &rows, tap),
        }
    }

    fn normalised<O: Ops<Floats = T>>(&self, ops: &mut O, states: &T, rows: usize) -> T {
        match self.norm {
            EmbeddingNorm::LayerNorm => ops.layer_norm(states, rows, self.dim, OUTPUT_EPS),
            EmbeddingNorm::L2Norm => ops.l2_norm(states, rows, self.dim, OUTPUT_EPS),
        }
    }
}
