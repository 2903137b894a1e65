//! Typed weights: every tensor of a checkpoint at its place, with its shape asserted, and the forward passes
//! over any backend's [`Ops`](crate::ops::Ops).

mod distilled;
mod encoder;
mod gru4rec;
mod hstu;
mod input_range;
mod mol;
mod named_tensors;
mod sasrec;
mod tap;
mod token_pooling;
mod token_pooling_file;
mod transformer;

pub use distilled::{Distilled, Tangents};
pub use encoder::{Encoder, EncoderLayers};
pub use gru4rec::{Gru4rec, GruLayer};
pub use hstu::{Hstu, HstuLayer};
pub use input_range::InputRange;
pub use mol::{CrossGate, GatePart, ItemParts, Mol, Projection};
pub use sasrec::{Sasrec, SasrecLayer};
pub use tap::Tap;
pub use token_pooling::{PoolingMethod, TokenPooling};
pub use token_pooling_file::TOKEN_POOLING_KEY;
pub use transformer::{Transformer, TransformerBlock};

use crate::checkpoint::{Checkpoint, MakeTensor, Weights};
use crate::config::{ModelConfig, SimilarityConfig};
use crate::error::Parameter;
use crate::ops::Linear;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// A trained model on the host. [`ModelFile`](crate::ModelFile) reads one from a file; [`Model::load`] takes it from tensors.
#[derive(Clone, Debug)]
pub struct Model {
    /// Its hyper-parameters.
    pub config: ModelConfig,
    /// The sequence encoder, item table included.
    pub encoder: Encoder<Tensor>,
    /// The Mixture-of-Logits similarity; `None` for a dot product.
    pub mol: Option<Mol<Tensor>>,
    /// (item rows, D): what queries are compared with; `None` if it is the encoder's item table.
    pub output_items: Option<Tensor>,
    /// (item rows): the bias of each item, if there is one.
    pub output_bias: Option<Tensor>,
}

impl Model {
    /// Takes every tensor that `config` asks for out of `checkpoint`.
    ///
    /// # Errors
    /// If a tensor is missing, has another shape, holds NaN or infinity, or is not asked for.
    pub fn load(checkpoint: &Checkpoint, config: ModelConfig) -> Result<Model> {
        Model::of_weights(Weights::new(checkpoint), config)
    }

    /// A model of new tensors for items 1..`n_item_rows`: `make` is told name and shape of each, as a checkpoint has them.
    ///
    /// # Errors
    /// As [`ModelConfig::validate`].
    pub fn make(config: ModelConfig, n_item_rows: usize, make: &mut MakeTensor) -> Result<Model> {
        config.validate()?;
        let n_rows = n_item_rows + usize::from(config.encoder.appends_mask());
        Model::of_weights(Weights::made(n_rows, make), config)
    }

    fn of_weights(mut weights: Weights, config: ModelConfig) -> Result<Model> {
        let encoder = Encoder::load(&mut weights, &config)?;
        let mol = match &config.similarity {
            SimilarityConfig::DotProduct => None,
            SimilarityConfig::Mol(mol) => Some(Mol::load(&mut weights, mol, config.item_embedding_dim)?),
        };
        let n_rows = encoder.items.rows().saturating_sub(usize::from(config.encoder.appends_mask()));
        let mut output = |has: bool, name: &str, shape: &[usize]| has.then(|| weights.take(name, shape)).transpose();
        let output_items = output(config.output.separate, "output.weight", &[n_rows, config.item_embedding_dim])?;
        let output_bias = output(config.output.bias, "output.bias", &[n_rows])?;
        weights.finish()?;
        Ok(Model { config, encoder, mol, output_items, output_bias })
    }

    /// Rows of the item table, without that of a mask; ids run from 1 to one less than this.
    pub fn n_item_rows(&self) -> usize {
        self.encoder.items.rows().saturating_sub(usize::from(self.config.encoder.appends_mask()))
    }

    /// (n, D): the raw embeddings of the items `ids`, as queries are compared with them; each ends with its bias if items have one.
    ///
    /// # Errors
    /// If an id is 0 or beyond the table.
    pub fn item_embeddings(&self, ids: &[u32]) -> Result<Tensor> {
        let (rows, width) = (self.n_item_rows(), self.config.query_embedding_dim());
        let mut data = Vec::with_capacity(ids.len() * width);
        for &id in ids {
            if id == 0 || id as usize >= rows {
                let expected = format!("ids from 1 to {} (rows of the item table)", rows.saturating_sub(1));
                return Err(Error::argument(Parameter::ItemIds, expected, id));
            }
            self.push_item(id as usize, &mut data);
        }
        Ok(Tensor::trusted(vec![ids.len(), width], data))
    }

    /// Appends the embedding of the item in `row` of the table to `data`.
    pub(crate) fn push_item(&self, row: usize, data: &mut Vec<f32>) {
        data.extend_from_slice(self.output_items.as_ref().unwrap_or(&self.encoder.items).row(row));
        data.extend(self.output_bias.iter().map(|bias| bias.data()[row]));
    }
}

/// Reads a PyTorch `Linear`: weight (n_out, n_in) and, if asked for, bias (n_out).
fn torch_linear(weights: &mut Weights, name: &str, n_in: usize, n_out: usize, bias: bool) -> Result<Linear<Tensor>> {
    let weight = transposed(&weights.take(&format!("{name}.weight"), &[n_out, n_in])?);
    let bias = if bias { Some(weights.take(&format!("{name}.bias"), &[n_out])?) } else { None };
    Ok(Linear { weight, bias, n_in, n_out })
}

/// (columns, rows) of a (rows, columns) matrix.
fn transposed(matrix: &Tensor) -> Tensor {
    let (rows, columns) = (matrix.rows(), matrix.width());
    let data = (0..rows * columns).map(|i| matrix.data()[i % rows * columns + i / rows]).collect();
    Tensor::trusted(vec![columns, rows], data)
}

/// Rows `from..to` of a matrix or vector.
fn rows_of(tensor: &Tensor, from: usize, to: usize) -> Tensor {
    let mut shape = tensor.shape().to_vec();
    shape[0] = to - from;
    let width = tensor.width();
    Tensor::trusted(shape, tensor.data()[from * width..to * width].to_vec())
}
