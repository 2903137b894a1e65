//! Gradients of a linear layer with its activation.

use crate::backend::cpu::ops::activation::Differentiate;
use crate::backend::cpu::ops::gemm::{Matrix, multiply};
use crate::backend::cpu::ops::shared::{Memory, Shared};
use crate::backend::cpu::simd;
use crate::ops::{Activation, LinearGradients, LinearInputs};
use crate::threads;

/// Rows whose part of the gradient of the weights is one sum; these are added in order. It depends on nothing, so that the number of
/// threads does not show.
const CHUNK: usize = 1024;

/// Rows that are multiplied at a time, so that they are still in the cache for the next product.
const BLOCK: usize = 256;

/// See [`GradientOps::linear_gradient`](crate::ops::GradientOps::linear_gradient).
pub fn linear_gradient(memory: &Memory, inputs: &LinearInputs<Shared>, dy: &[f32], into: LinearGradients<Shared>) {
    let (n_in, n_out, rows) = (inputs.layer.n_in, inputs.layer.n_out, inputs.rows);
    let n_weights = n_in * n_out;
    let n_sums = n_weights + if inputs.layer.bias.is_some() { n_out } else { 0 };
    let mut sums = memory.unspecified(rows.div_ceil(CHUNK) * n_sums);
    let dx = memory.gradient(into.x, rows * n_in);
    let chunks = dx.chunks_mut((CHUNK * n_in).max(1)).zip(sums.make_mut().chunks_mut(n_sums.max(1))).enumerate();
    threads::for_each(chunks, |(chunk, (dx, sums))| {
        let (weight_sums, bias_sums) = sums.split_at_mut(n_weights);
        bias_sums.fill(0.0);
        let mut before = memory.unspecified(if inputs.activation == Activation::Identity { 0 } else { BLOCK * n_out });
        for (block, dx) in dx.chunks_mut(BLOCK * n_in).enumerate() {
            let (first, block_rows) = (chunk * CHUNK + block * BLOCK, dx.len() / n_in);
            let cells = first * n_out..(first + block_rows) * n_out;
            let mut d = &dy[cells.clone()];
            if inputs.activation != Activation::Identity {
                let gradient = &mut before.make_mut()[..cells.len()];
                gradient.copy_from_slice(d);
                let (x, activation) = (&inputs.before_activation[cells], inputs.activation);
                simd::run(Differentiate { x, gradient, activation });
                d = &before[..d.len()];
            }
            let (d_rows, weight) = (Matrix::rows(d, n_out), Matrix::rows(&inputs.layer.weight, n_out));
            multiply((block_rows, n_out, n_in), 1.0, d_rows, weight.transposed(), 1.0, dx, n_in);
            let x = Matrix::rows(&inputs.x[first * n_in..], n_in).transposed();
            let keep = if block == 0 { 0.0 } else { 1.0 };
            multiply((n_in, block_rows, n_out), 1.0, x, d_rows, keep, weight_sums, n_out);
            for d in d.chunks_exact(n_out).take(if bias_sums.is_empty() { 0 } else { block_rows }) {
                bias_sums.iter_mut().zip(d).for_each(|(sum, d)| *sum += d);
            }
        }
    });
    add_parts(&sums, n_sums, 0, memory.gradient(into.weight, n_weights));
    if inputs.layer.bias.is_some() {
        add_parts(&sums, n_sums, n_weights, memory.gradient(into.bias, n_out));
    }
}

/// Adds the parts of a sum to it, in their order: each is `stride` numbers, those from `first` on are meant.
pub fn add_parts(parts: &[f32], stride: usize, first: usize, sum: &mut [f32]) {
    const PIECE: usize = 4096;
    threads::for_each(sum.chunks_mut(PIECE).enumerate(), |(piece, sum)| {
        for part in parts.chunks_exact(stride.max(1)) {
            let part = &part[first + piece * PIECE..];
            sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
    });
}
