//! The cross part of the gate: its weights for both ways, and their gradients.

use pulp::Simd;

use crate::backend::cpu::dot::micro_kernel::{ROWS, RowBlocks, TILE};
use crate::backend::cpu::simd::aligned::AlignedFloats;
use crate::model::CrossGate;
use crate::ops::Linear;

/// The weights, packed for the micro-kernel.
pub struct CrossWeights {
    /// L
    pub n_logits: usize,
    /// H, or 0 without a hidden layer.
    pub n_hidden: usize,
    /// Inputs of the output layer: H hidden units, or L logits, or both.
    pub n_inputs: usize,
    /// The hidden layer, if there is one.
    pub hidden: Option<HiddenWeights>,
    /// (L, inputs)
    pub output: RowBlocks,
    /// (L)
    pub output_bias: Vec<f32>,
    /// (inputs, L): the way back.
    pub output_back: RowBlocks,
}

/// Weights of the hidden layer.
pub struct HiddenWeights {
    /// (H, L)
    pub weights: RowBlocks,
    /// (H)
    pub bias: Vec<f32>,
    /// (L, H): the way back.
    pub back: RowBlocks,
}

impl CrossWeights {
    /// Packs the weights.
    pub fn new(cross: &CrossGate<&[f32]>) -> CrossWeights {
        let bias = |layer: &Linear<&[f32]>| layer.bias.map_or(vec![0.0; layer.n_out], <[f32]>::to_vec);
        let output = &cross.output;
        // The logits lie behind the hidden units.
        let weight = [output.weight, cross.linear.unwrap_or_default()].concat();
        let (n_logits, n_inputs) = (output.n_out, weight.len() / output.n_out);
        let hidden = cross.hidden.as_ref().map(|layer| HiddenWeights {
            weights: RowBlocks::from_columns(layer.weight, layer.n_out, layer.n_in),
            bias: bias(layer),
            back: RowBlocks::from_rows(layer.weight, layer.n_in, layer.n_out),
        });
        CrossWeights {
            n_logits,
            n_hidden: cross.hidden.as_ref().map_or(0, |layer| layer.n_out),
            n_inputs,
            hidden,
            output: RowBlocks::from_columns(&weight, n_logits, n_inputs),
            output_bias: bias(output),
            output_back: RowBlocks::from_rows(&weight, n_inputs, n_logits),
        }
    }

    /// Distance of rows that have a value for each logit, where these are the lanes: L, and room for whole registers.
    pub fn row(&self) -> usize {
        self.n_logits.next_multiple_of(TILE)
    }

    /// Numbers of a [`CrossSums`].
    fn n_sums(&self) -> usize {
        (self.n_inputs + self.n_hidden + 1) * self.row() + self.n_hidden * TILE
    }
}

/// Gradients of the weights, of some pairs.
pub struct CrossSums {
    values: AlignedFloats,
}

/// The parts of a [`CrossSums`].
pub struct CrossParts<'a> {
    /// (inputs, row)
    pub output: &'a mut [f32],
    /// (H, row)
    pub hidden: &'a mut [f32],
    /// (row)
    pub output_bias: &'a mut [f32],
    /// (H, TILE): a sum for each lane.
    pub hidden_bias: &'a mut [f32],
}

impl CrossSums {
    /// Zeros.
    pub fn new(weights: &CrossWeights) -> CrossSums {
        CrossSums { values: AlignedFloats::zeros(weights.n_sums()) }
    }

    /// Sets all to zero.
    pub fn clear(&mut self) {
        self.values.fill(0.0);
    }

    /// The single gradients.
    pub fn parts(&mut self, weights: &CrossWeights) -> CrossParts<'_> {
        let row = weights.row();
        let (output, rest) = self.values.split_at_mut(weights.n_inputs * row);
        let (hidden, rest) = rest.split_at_mut(weights.n_hidden * row);
        let (output_bias, hidden_bias) = rest.split_at_mut(row);
        CrossParts { output, hidden, output_bias, hidden_bias }
    }
}

/// Gradients of the weights, of all pairs.
pub struct CrossTotals {
    values: Vec<f64>,
}

impl CrossTotals {
    /// Zeros.
    pub fn new(weights: &CrossWeights) -> CrossTotals {
        CrossTotals { values: vec![0.0; weights.n_sums()] }
    }

    /// Adds those of some pairs.
    pub fn add(&mut self, sums: &CrossSums) {
        self.values.iter_mut().zip(sums.values.iter()).for_each(|(total, &sum)| *total += f64::from(sum));
    }

    /// Writes them in the layout of the weights.
    pub fn write(&self, weights: &CrossWeights, to: &mut CrossGate<&mut [f32]>) {
        let (n, row, n_hidden) = (weights.n_logits, weights.row(), weights.n_hidden);
        let (output, rest) = self.values.split_at(weights.n_inputs * row);
        let (hidden, rest) = rest.split_at(n_hidden * row);
        let (output_bias, hidden_bias) = rest.split_at(row);
        let mut rows = output.chunks_exact(row);
        let mut copy = |to: &mut [f32]| {
            for (to, from) in to.chunks_exact_mut(n).zip(&mut rows) {
                to.iter_mut().zip(from).for_each(|(to, &from)| *to = from as f32);
            }
        };
        copy(to.output.weight);
        to.linear.iter_mut().for_each(|linear| copy(linear));
        if let Some(bias) = &mut to.output.bias {
            bias.iter_mut().zip(output_bias).for_each(|(to, &from)| *to = from as f32);
        }
        let Some(layer) = &mut to.hidden else { return };
        for (l, to) in layer.weight.chunks_exact_mut(n_hidden).enumerate() {
            to.iter_mut().enumerate().for_each(|(h, to)| *to = hidden[h * row + l] as f32);
        }
        if let Some(bias) = &mut layer.bias {
            let lanes = hidden_bias.chunks_exact(TILE);
            bias.iter_mut().zip(lanes).for_each(|(to, lanes)| *to = lanes.iter().sum::<f64>() as f32);
        }
    }
}

/// Adds to `sums` (rows, width), whose rows are `row` apart, the products of `x` (rows, TILE) and `y` (TILE, row): sums over the pairs
/// of a tile, each one chain of fused multiply-adds in their order.
#[inline(always)]
pub fn add_products<S: Simd>(simd: S, x: &[f32], y: &[f32], width: usize, row: usize, sums: &mut [f32]) {
    let (x, _) = x.as_chunks::<TILE>();
    let step = 2 * S::F32_LANES;
    for column in (0..width).step_by(step) {
        let (mut x, mut sums) = (x, &mut sums[..]);
        while !x.is_empty() {
            let n = match x.len() {
                n if n >= 2 * ROWS && S::REGISTER_COUNT >= 32 => {
                    add_block::<S, { 2 * ROWS }>(simd, x, y, column, row, sums)
                }
                n if n >= ROWS => add_block::<S, ROWS>(simd, x, y, column, row, sums),
                _ => add_block::<S, 1>(simd, x, y, column, row, sums),
            };
            (x, sums) = (&x[n..], &mut sums[n * row..]);
        }
    }
}

/// The first R rows of two registers of columns; returns R.
#[inline(always)]
fn add_block<S: Simd, const R: usize>(
    simd: S,
    x: &[[f32; TILE]],
    y: &[f32],
    column: usize,
    row: usize,
    sums: &mut [f32],
) -> usize {
    let step = 2 * S::F32_LANES;
    let mut registers = [[simd.splat_f32s(0.0); 2]; R];
    for (r, registers) in registers.iter_mut().enumerate() {
        registers.copy_from_slice(S::as_simd_f32s(&sums[r * row + column..][..step]).0);
    }
    let x: &[[f32; TILE]] = &x[..R];
    for (pair, y) in y.chunks_exact(row).take(TILE).enumerate() {
        let (y, _) = S::as_simd_f32s(&y[column..][..step]);
        for (r, registers) in registers.iter_mut().enumerate() {
            let factor = simd.splat_f32s(x[r][pair]);
            registers[0] = simd.mul_add_e_f32s(factor, y[0], registers[0]);
            registers[1] = simd.mul_add_e_f32s(factor, y[1], registers[1]);
        }
    }
    for (r, registers) in registers.iter().enumerate() {
        S::as_mut_simd_f32s(&mut sums[r * row + column..][..step]).0.copy_from_slice(registers);
    }
    R
}
