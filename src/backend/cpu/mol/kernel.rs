//! The weights that every pair of a query and an item needs.

use crate::backend::cpu::dot::micro_kernel::RowBlocks;
use crate::config::MolConfig;
use crate::model::CrossGate;
use crate::tensor::Tensor;

/// The shape of the mixture and the cross part of its gate, packed for the micro-kernel.
pub struct MolKernel {
    /// Shape.
    pub(super) config: MolConfig,
    /// (H, L) weights and H biases of the hidden layer, if there is one.
    pub(super) hidden: Option<(RowBlocks, Vec<f32>)>,
    /// (L, H + L or H or L): weights of the output layer and of the linear part beside the hidden layer.
    pub(super) output: RowBlocks,
    /// (L)
    pub(super) output_bias: Vec<f32>,
    /// H, or 0.
    pub(super) n_hidden: usize,
}

impl MolKernel {
    /// Packs the weights that every (query, item) pair needs.
    pub fn new(config: &MolConfig, cross: &CrossGate<Tensor>) -> MolKernel {
        let bias = |bias: &Option<Tensor>, n: usize| bias.as_ref().map_or(vec![0.0; n], |b| b.data().to_vec());
        let output = &cross.output;
        let hidden = cross.hidden.as_ref().map(|layer| {
            let weights = RowBlocks::from_columns(layer.weight.data(), layer.n_out, layer.n_in);
            (weights, bias(&layer.bias, layer.n_out))
        });
        // The logits lie behind the hidden units, so a linear part beside the hidden layer is more columns of the output layer.
        let mut weight = output.weight.data().to_vec();
        if let Some(linear) = &cross.linear {
            weight.extend_from_slice(linear.data());
        }
        MolKernel {
            config: config.clone(),
            hidden,
            output: RowBlocks::from_columns(&weight, output.n_out, weight.len() / output.n_out),
            output_bias: bias(&output.bias, output.n_out),
            n_hidden: cross.hidden.as_ref().map_or(0, |layer| layer.n_out),
        }
    }

    /// L: logits of a pair.
    pub fn n_logits(&self) -> usize {
        self.config.n_logits()
    }
}
