//! [`GradientOps`] on host slices.

mod gru;
mod hstu_attention;
mod linear;
mod norm;
mod softmax_attention;
mod table;

use std::sync::Arc;

use pulp::{Simd, WithSimd};

use super::activation::{Activate, Differentiate};
use super::attention::{HstuAttention, ProbabilityDropout, SoftmaxAttention};
use super::shared::Shared;
use super::{CpuOps, MAX_ROWS};
use crate::backend::cpu::simd;
use crate::ops::{
    Activation, EmbedInputs, GradientOps, GruInputs, HstuAttentionInputs, HstuGateInputs, LayerNorm, Linear,
    LinearGradients, LinearInputs, SoftmaxAttentionInputs,
};
use crate::random::Dropout;
use crate::threads;
use gru::gru_gradient;
use hstu_attention::hstu_attention_gradient;
use linear::linear_gradient;
use softmax_attention::softmax_attention_gradient;

/// Elements that a thread takes at a time.
const PIECE: usize = 1 << 14;

type Ints = Arc<Vec<u32>>;
type Gradient<'a> = &'a mut Option<Shared>;

impl GradientOps for CpuOps {
    fn add(&mut self, part: Shared, gradient: Gradient) {
        match gradient {
            None => *gradient = Some(part),
            Some(sum) => threads::for_each(sum.make_mut().chunks_mut(PIECE).enumerate(), |(piece, sum)| {
                sum.iter_mut().zip(&part[piece * PIECE..]).for_each(|(sum, part)| *sum += part);
            }),
        }
    }

    fn drop_out(&mut self, x: &Shared, dropout: Dropout, sharing: usize) -> Shared {
        let mut y = self.memory.unspecified(x.len());
        threads::for_each(y.make_mut().chunks_mut(PIECE).enumerate(), |(piece, y)| {
            let first = piece * PIECE;
            y.copy_from_slice(&x[first..][..y.len()]);
            simd::run(DropOut { first, values: y, dropout, sharing });
        });
        y
    }

    fn linear_before_activation(
        &mut self,
        x: &Shared,
        rows: usize,
        layer: &Linear<Shared>,
        activation: Activation,
        residual: Option<&Shared>,
    ) -> (Shared, Shared) {
        if activation == Activation::Identity {
            let y = self.linear_to(x, rows, layer, activation, residual, None);
            return (y.clone(), y);
        }
        let mut before = self.memory.unspecified(rows * layer.n_out);
        (self.linear_to(x, rows, layer, activation, residual, Some(before.make_mut())), before)
    }

    fn softmax_attention_with(&mut self, inputs: &SoftmaxAttentionInputs<Shared, Ints>) -> Shared {
        let mut y = self.memory.zeros(inputs.rows.n_rows * inputs.shape.width);
        attention(inputs).run(y.make_mut());
        y
    }

    fn gather_gradient(&mut self, table: &Shared, width: usize, indices: &Ints, dy: &Shared, gradient: Gradient) {
        table::gather(indices, width, 1.0, dy, self.memory.gradient(gradient, table.len()));
    }

    fn embed_gradient(&mut self, inputs: &EmbedInputs<Shared, Ints>, dy: &Shared, [items, positions]: [Gradient; 2]) {
        let width = inputs.width;
        table::gather(inputs.ids, width, inputs.scale, dy, self.memory.gradient(items, inputs.items.len()));
        table::positions(&inputs.rows.start, width, dy, self.memory.gradient(positions, inputs.positions.len()));
    }

    fn linear_gradient(&mut self, inputs: &LinearInputs<Shared>, dy: &Shared, gradients: LinearGradients<Shared>) {
        linear_gradient(&self.memory, inputs, dy, gradients);
    }

    fn layer_norm_gradient(&mut self, x: &Shared, width: usize, eps: f32, dy: &Shared, gradient: Gradient) {
        norm::layer_norm(x, width, eps, dy, self.memory.gradient(gradient, x.len()));
    }

    fn affine_layer_norm_gradient(&mut self, x: &Shared, norm: &LayerNorm<Shared>, dy: &Shared, into: [Gradient; 3]) {
        norm::affine_layer_norm(&self.memory, x, norm, dy, into);
    }

    fn l2_norm_gradient(&mut self, x: &Shared, width: usize, eps: f32, dy: &Shared, gradient: Gradient) {
        norm::l2_norm(x, width, eps, dy, self.memory.gradient(gradient, x.len()));
    }

    fn glu_gradient(&mut self, x: &Shared, hidden: usize, activation: Activation, dy: &Shared, gradient: Gradient) {
        let width = 2 * hidden;
        let gradient = self.memory.gradient(gradient, x.len());
        threads::for_each(gradient.chunks_mut((MAX_ROWS * width).max(1)).enumerate(), |(piece, gradient)| {
            let (mut activated, mut of_activated) = (vec![0.0; hidden], vec![0.0; hidden]);
            let first = piece * MAX_ROWS;
            let rows = x[first * width..].chunks_exact(width).zip(dy[first * hidden..].chunks_exact(hidden));
            for (gradient, (x, dy)) in gradient.chunks_exact_mut(width).zip(rows) {
                let (x, gate) = x.split_at(hidden);
                let (dx, d_gate) = gradient.split_at_mut(hidden);
                activated.copy_from_slice(x);
                simd::run(Activate { values: &mut activated, activation });
                d_gate.iter_mut().zip(dy.iter().zip(&activated)).for_each(|(d, (dy, activated))| *d += dy * activated);
                of_activated.iter_mut().zip(dy.iter().zip(gate)).for_each(|(d, (dy, gate))| *d = dy * gate);
                simd::run(Differentiate { x, gradient: &mut of_activated, activation });
                dx.iter_mut().zip(&of_activated).for_each(|(dx, d)| *dx += d);
            }
        });
    }

    fn concat_gradient(&mut self, dy: &Shared, total: usize, first: usize, width: usize, gradient: Gradient) {
        let rows = dy.len() / total.max(1);
        threads::for_each_row(self.memory.gradient(gradient, rows * width), width, MAX_ROWS, |row, gradient| {
            gradient.iter_mut().zip(&dy[row * total + first..]).for_each(|(sum, dy)| *sum += dy);
        });
    }

    fn hstu_attention_gradient(
        &mut self,
        inputs: &HstuAttentionInputs<Shared, Ints>,
        dy: &Shared,
        gradients: [Gradient; 3],
    ) {
        let HstuAttentionInputs { uvqk, shape, rows, buckets, pos_w, ts_w } = *inputs;
        let (start, max_length) = (&rows.start, rows.max_length);
        let attention = HstuAttention { uvqk, shape, start, max_length, buckets, pos_w, ts_w };
        hstu_attention_gradient(&self.memory, &attention, dy, gradients);
    }

    fn hstu_gate_gradient(&mut self, inputs: &HstuGateInputs<Shared>, dy: &Shared, [uvqk, attended]: [Gradient; 2]) {
        let of_uvqk = self.memory.gradient(uvqk, inputs.uvqk.len());
        norm::hstu_gate(inputs, dy, of_uvqk, self.memory.gradient(attended, inputs.attended.len()));
    }

    fn softmax_attention_gradient(
        &mut self,
        inputs: &SoftmaxAttentionInputs<Shared, Ints>,
        dy: &Shared,
        gradients: [Gradient; 2],
    ) {
        softmax_attention_gradient(&self.memory, &attention(inputs), dy, gradients);
    }

    fn gru_gradient(&mut self, inputs: &GruInputs<Shared>, dy: &Shared, gradients: LinearGradients<Shared>) {
        gru_gradient(&self.memory, inputs, dy, gradients);
    }
}

fn attention<'a>(inputs: &SoftmaxAttentionInputs<'a, Shared, Ints>) -> SoftmaxAttention<'a> {
    let SoftmaxAttentionInputs { q, kv, shape, rows, dropout } = *inputs;
    let dropout = dropout.map(|dropout| ProbabilityDropout::new(dropout, rows.max_length));
    SoftmaxAttention { q, kv, shape, start: &rows.start, dropout }
}

/// Drops out elements `first ..`, those of the same `sharing` together.
struct DropOut<'a> {
    first: usize,
    values: &'a mut [f32],
    dropout: Dropout,
    sharing: usize,
}

impl WithSimd for DropOut<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let DropOut { first, values, dropout, sharing } = self;
        if sharing == 1 {
            return dropout.apply(first as u64, values);
        }
        for (i, value) in values.iter_mut().enumerate() {
            *value *= if dropout.keep(((first + i) / sharing) as u64) { dropout.scale() } else { 0.0 };
        }
    }
}
