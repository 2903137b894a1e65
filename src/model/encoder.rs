//! A sequence encoder: item and position embeddings, the layers, and the output normalisation.

use crate::Result;
use crate::checkpoint::Weights;
use crate::config::{EmbeddingNorm, EncoderConfig, ModelConfig};
use crate::model::{Gru4rec, Hstu, Sasrec, Tap, Transformer};
use crate::ops::{DropoutSite, Ops, Rows};
use crate::sequence::SequenceBatch;
use crate::tensor::Tensor;

/// Eps of the output normalisation, in both of its forms; the reference fixes it.
const OUTPUT_EPS: f32 = 1e-6;

/// The tables of the reference's models.
pub(super) const REFERENCE_ITEMS: &str = "_embedding_module._item_emb.weight";
pub(super) const REFERENCE_POSITIONS: &str = "_input_features_preproc._pos_emb.weight";

/// Those of GRU4Rec and transformers.
pub(super) const ITEMS: &str = "item_embedding.weight";
pub(super) const POSITIONS: &str = "position_embedding.weight";

/// Weights of an encoder, wherever `T` keeps them.
#[derive(Clone, Debug)]
pub struct Encoder<T> {
    /// (item rows, D): item embeddings; of an encoder that appends masks, that of the mask in the last row.
    pub items: T,
    /// (N, D): position embeddings, where there are any.
    pub positions: Option<T>,
    /// The layers.
    pub layers: EncoderLayers<T>,
    /// D: width of embeddings.
    pub dim: usize,
    /// Output normalisation.
    pub norm: EmbeddingNorm,
    /// Whether a query embedding ends with a 1, which is multiplied by the bias of an item.
    pub appends_one: bool,
}

/// Layers of one of the supported encoders.
#[derive(Clone, Debug)]
pub enum EncoderLayers<T> {
    /// See [`Hstu`].
    Hstu(Hstu<T>),
    /// See [`Sasrec`].
    Sasrec(Sasrec<T>),
    /// See [`Gru4rec`].
    Gru4rec(Gru4rec<T>),
    /// See [`Transformer`].
    Transformer(Transformer<T>),
}

impl Encoder<Tensor> {
    /// Reads the encoder's tensors.
    ///
    /// # Errors
    /// As [`crate::model::Model::load`].
    pub fn load(weights: &mut Weights, config: &ModelConfig) -> Result<Encoder<Tensor>> {
        let dim = config.item_embedding_dim;
        let (item_table, position_table) = table_names(&config.encoder);
        let n_item_rows = weights.rows(item_table)?;
        let positions = position_table.map(|name| weights.take(name, &[config.padded_length(), dim]));
        Ok(Encoder {
            items: weights.take(item_table, &[n_item_rows, dim])?,
            positions: positions.transpose()?,
            layers: match &config.encoder {
                EncoderConfig::Hstu(hstu) => {
                    EncoderLayers::Hstu(Hstu::load(weights, hstu, dim, config.padded_length())?)
                }
                EncoderConfig::Sasrec(sasrec) => EncoderLayers::Sasrec(Sasrec::load(weights, sasrec, dim)?),
                EncoderConfig::Gru4rec(gru) => EncoderLayers::Gru4rec(Gru4rec::load(weights, gru, dim)?),
                EncoderConfig::Bert4rec(bert) => {
                    EncoderLayers::Transformer(Transformer::load(weights, &bert.into(), dim)?)
                }
                EncoderConfig::Transformer(config) => {
                    EncoderLayers::Transformer(Transformer::load(weights, config, dim)?)
                }
            },
            dim,
            norm: config.user_embedding_norm,
            appends_one: config.output.bias,
        })
    }
}

/// Names of the tables of items and, where there is one, of positions.
fn table_names(encoder: &EncoderConfig) -> (&'static str, Option<&'static str>) {
    match encoder {
        EncoderConfig::Hstu(_) | EncoderConfig::Sasrec(_) => (REFERENCE_ITEMS, Some(REFERENCE_POSITIONS)),
        EncoderConfig::Gru4rec(_) => (ITEMS, None),
        EncoderConfig::Bert4rec(_) | EncoderConfig::Transformer(_) => (ITEMS, Some(POSITIONS)),
    }
}

impl<T> Encoder<T> {
    /// The same encoder with its arrays elsewhere.
    pub fn map<U>(&self, f: &mut impl FnMut(&T) -> U) -> Encoder<U> {
        Encoder {
            items: f(&self.items),
            positions: self.positions.as_ref().map(&mut *f),
            layers: match &self.layers {
                EncoderLayers::Hstu(hstu) => EncoderLayers::Hstu(hstu.map(f)),
                EncoderLayers::Sasrec(sasrec) => EncoderLayers::Sasrec(sasrec.map(f)),
                EncoderLayers::Gru4rec(gru) => EncoderLayers::Gru4rec(gru.map(f)),
                EncoderLayers::Transformer(layers) => EncoderLayers::Transformer(layers.map(f)),
            },
            dim: self.dim,
            norm: self.norm,
            appends_one: self.appends_one,
        }
    }

    /// Width of query embeddings: D, and one more if they end with a 1.
    pub fn query_dim(&self) -> usize {
        self.dim + usize::from(self.appends_one)
    }

    /// (B, [`query_dim`](Encoder::query_dim)): the query embedding of each sequence, from the state at its last row.
    pub fn forward<O: Ops<Floats = T>>(&self, ops: &mut O, batch: &SequenceBatch, tap: Tap<O>) -> T {
        let ids = ops.ints(&batch.item_ids);
        let states = self.states(ops, &self.items, &ids, batch, tap);
        let last_rows = ops.ints(&batch.last_rows());
        let width = match &self.layers {
            EncoderLayers::Gru4rec(gru) => gru.hidden_dim(),
            _ => self.dim,
        };
        let last = ops.gather(&states, width, &last_rows, batch.len());
        self.output(ops, last, batch.len())
    }

    /// (R, [`query_dim`](Encoder::query_dim)): the query embedding after each row of each sequence, which training asks for. `items` is a
    /// table of the item embeddings, or of those that the batch needs, and `ids` (R) are its rows that belong to the events.
    pub fn forward_all<O: Ops<Floats = T>>(&self, ops: &mut O, items: &T, ids: &O::Ints, batch: &SequenceBatch) -> T {
        let states = self.states(ops, items, ids, batch, &mut |_, _, _| {});
        self.output(ops, states, batch.n_rows())
    }

    /// (R, width of a state): what the layers make of each row of each sequence.
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
        let x = match (&self.positions, &self.layers) {
            (Some(positions), EncoderLayers::Transformer(layers)) => {
                layers.embed(ops, (items, positions, self.dim), ids, batch, &rows)
            }
            (Some(positions), _) => ops.embed(items, positions, self.dim, (self.dim as f32).sqrt(), ids, &rows),
            (None, _) => ops.gather(items, self.dim, ids, rows.n_rows),
        };
        tap("preproc_out", &x, self.dim);
        let x = ops.dropout(&x, rows.n_rows, self.dim, DropoutSite::Input);
        match &self.layers {
            EncoderLayers::Hstu(hstu) => hstu.forward(ops, x, self.dim, batch, &rows, tap),
            EncoderLayers::Sasrec(sasrec) => sasrec.forward(ops, x, self.dim, &rows, tap),
            EncoderLayers::Gru4rec(gru) => gru.forward(ops, x, batch, tap),
            EncoderLayers::Transformer(layers) => layers.forward(ops, x, self.dim, (batch, &rows), tap),
        }
    }

    /// (rows, [`query_dim`](Encoder::query_dim)): query embeddings of states.
    fn output<O: Ops<Floats = T>>(&self, ops: &mut O, states: T, rows: usize) -> T {
        let states = match &self.layers {
            EncoderLayers::Hstu(_) | EncoderLayers::Sasrec(_) => states,
            EncoderLayers::Gru4rec(gru) => gru.output(ops, states, rows),
            EncoderLayers::Transformer(layers) => layers.output(ops, states, rows),
        };
        let queries = match self.norm {
            EmbeddingNorm::LayerNorm => ops.layer_norm(&states, rows, self.dim, OUTPUT_EPS),
            EmbeddingNorm::L2Norm => ops.l2_norm(&states, rows, self.dim, OUTPUT_EPS),
            EmbeddingNorm::None => states,
        };
        if !self.appends_one {
            return queries;
        }
        let ones = ops.floats(&Tensor::trusted(vec![rows, 1], vec![1.0; rows]));
        ops.concat(&[(&queries, self.dim), (&ones, 1)], rows)
    }
}
