//! GRU4Rec (Session-based Recommendations with Recurrent Neural Networks, arXiv 1511.06939) on layers as torch's `nn.GRU`.

use crate::Result;
use crate::checkpoint::Weights;
use crate::config::Gru4recConfig;
use crate::model::{Tap, torch_linear, transposed};
use crate::ops::{Activation, Linear, Ops};
use crate::sequence::SequenceBatch;
use crate::tensor::Tensor;

/// All layers of a GRU4Rec encoder.
#[derive(Clone, Debug)]
pub struct Gru4rec<T> {
    /// The layers, first one first.
    pub layers: Vec<GruLayer<T>>,
    /// State -> D, where there is such a layer.
    pub dense: Option<Linear<T>>,
}

/// One layer; columns are those of the reset gate, of the update gate and of the candidate.
#[derive(Clone, Debug)]
pub struct GruLayer<T> {
    /// Width of the input -> 3 hidden.
    pub input: Linear<T>,
    /// Hidden -> 3 hidden.
    pub recurrent: Linear<T>,
}

impl Gru4rec<Tensor> {
    pub(super) fn load(weights: &mut Weights, config: &Gru4recConfig, dim: usize) -> Result<Gru4rec<Tensor>> {
        let hidden = config.hidden_dim;
        let layers = (0..config.num_layers).map(|layer| {
            let mut gates = |from: &str, n_in: usize| {
                let weight = transposed(&weights.take(&format!("gru.weight_{from}_l{layer}"), &[3 * hidden, n_in])?);
                let bias = match config.bias {
                    true => Some(weights.take(&format!("gru.bias_{from}_l{layer}"), &[3 * hidden])?),
                    false => None,
                };
                Ok(Linear { weight, bias, n_in, n_out: 3 * hidden })
            };
            let input = gates("ih", if layer == 0 { dim } else { hidden })?;
            Ok(GruLayer { input, recurrent: gates("hh", hidden)? })
        });
        let layers = layers.collect::<Result<_>>()?;
        let dense = match config.dense {
            true => Some(torch_linear(weights, "dense", hidden, dim, true)?),
            false => None,
        };
        Ok(Gru4rec { layers, dense })
    }
}

impl<T> Gru4rec<T> {
    /// Width of a state of the last layer.
    pub fn hidden_dim(&self) -> usize {
        self.layers.last().map_or(0, |layer| layer.recurrent.n_in)
    }

    pub(super) fn map<U>(&self, f: &mut impl FnMut(&T) -> U) -> Gru4rec<U> {
        let layers = self.layers.iter();
        let layers = layers.map(|layer| GruLayer { input: layer.input.map(f), recurrent: layer.recurrent.map(f) });
        Gru4rec { layers: layers.collect(), dense: self.dense.as_ref().map(|dense| dense.map(f)) }
    }

    /// (R, hidden): states of the last layer.
    pub(super) fn forward<O: Ops<Floats = T>>(&self, ops: &mut O, mut x: T, batch: &SequenceBatch, tap: Tap<O>) -> T {
        for (i, layer) in self.layers.iter().enumerate() {
            let gates = ops.linear(&x, batch.n_rows(), &layer.input, Activation::Identity, None);
            x = ops.gru(&gates, &layer.recurrent, &batch.offsets);
            tap(&format!("layer{i}.states"), &x, layer.recurrent.n_in);
        }
        x
    }

    /// (rows, D): query embeddings of states.
    pub(super) fn output<O: Ops<Floats = T>>(&self, ops: &mut O, states: T, rows: usize) -> T {
        match &self.dense {
            Some(dense) => ops.linear(&states, rows, dense, Activation::Identity, None),
            None => states,
        }
    }
}
