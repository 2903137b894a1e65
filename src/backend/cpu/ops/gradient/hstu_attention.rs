//! Gradient of HSTU's attention. Weights are computed again, tile by tile, so that none are stored.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::linear::add_parts;
use crate::backend::cpu::ops::attention::{HstuAttention, sequences};
use crate::backend::cpu::ops::gemm::{Matrix, multiply};
use crate::backend::cpu::ops::shared::{Memory, Shared};
use crate::backend::cpu::simd;
use crate::backend::cpu::simd::math::{INTERLEAVED, sigmoid};
use crate::ops::HstuShape;
use crate::threads;

/// Rows that attend at a time. Half of a tile's last columns are masked, so larger ones waste more of short sequences.
const TILE: usize = 32;

/// See [`GradientOps::hstu_attention_gradient`](crate::ops::GradientOps::hstu_attention_gradient).
pub fn hstu_attention_gradient(
    memory: &Memory,
    attention: &HstuAttention,
    dy: &[f32],
    [uvqk, pos_w, ts_w]: [&mut Option<Shared>; 3],
) {
    let (n_pos, n_bias) = (attention.pos_w.len(), attention.pos_w.len() + attention.ts_w.len());
    let sequences: Vec<Range<usize>> = sequences(attention.start).collect();
    let mut bias_parts = memory.zeros(sequences.len() * n_bias);
    let stride = attention.shape.uvqk();
    let mut rest = memory.gradient(uvqk, attention.start.len() * stride);
    let mut tasks = Vec::with_capacity(sequences.len());
    for (rows, bias) in sequences.into_iter().zip(bias_parts.make_mut().chunks_mut(n_bias)) {
        let (gradient, others) = rest.split_at_mut(rows.len() * stride);
        rest = others;
        tasks.push(Sequence { attention, dy, rows, gradient, bias });
    }
    threads::for_each(tasks.into_iter(), |sequence| {
        let scratch = memory.unspecified(Scratch::len(sequence.rows.len()));
        simd::run(Differentiated { sequence, scratch });
    });
    add_parts(&bias_parts, n_bias, 0, memory.gradient(pos_w, n_pos));
    add_parts(&bias_parts, n_bias, n_pos, memory.gradient(ts_w, attention.ts_w.len()));
}

struct Sequence<'a> {
    attention: &'a HstuAttention<'a>,
    dy: &'a [f32],
    rows: Range<usize>,
    /// (rows, uvqk): this is added to.
    gradient: &'a mut [f32],
    /// Of `pos_w`, then of `ts_w`: this is added to.
    bias: &'a mut [f32],
}

/// Arrays (TILE, length).
struct Scratch<'a> {
    bias: &'a mut [f32],
    bias_gradient: &'a mut [f32],
    /// Arguments of SiLU, then weights.
    weights: &'a mut [f32],
    /// Of the weights, then of the arguments.
    gradient: &'a mut [f32],
}

impl Scratch<'_> {
    fn len(length: usize) -> usize {
        4 * TILE * length
    }

    fn new(values: &mut [f32]) -> Scratch<'_> {
        let quarter = values.len() / 4;
        let (bias, values) = values.split_at_mut(quarter);
        let (bias_gradient, values) = values.split_at_mut(quarter);
        let (weights, gradient) = values.split_at_mut(quarter);
        Scratch { bias, bias_gradient, weights, gradient }
    }
}

struct Differentiated<'a> {
    sequence: Sequence<'a>,
    scratch: Shared,
}

impl WithSimd for Differentiated<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let Sequence { attention, dy, rows, gradient, bias: bias_sums } = self.sequence;
        let HstuAttention { uvqk, shape, max_length, buckets, pos_w, ts_w, .. } = *attention;
        let HstuShape { heads, dqk, dv, padded_length } = shape;
        let (stride, width, length) = (shape.uvqk(), shape.attended(), rows.len());
        let (pos_sums, ts_sums) = bias_sums.split_at_mut(pos_w.len());
        let Scratch { bias, bias_gradient, weights, gradient: d } = Scratch::new(self.scratch.make_mut());
        for first in (0..length).step_by(TILE) {
            let tile = first..length.min(first + TILE);
            // Columns of the tile: no row of it attends to later ones.
            let (m, n) = (tile.len(), tile.end);
            for (bias, i) in bias.chunks_exact_mut(n).zip(tile.clone()) {
                let buckets = &buckets[(rows.start + i) * max_length..];
                let pos_w = &pos_w[padded_length - 1 - i..];
                for (bias, (pos_w, &bucket)) in bias[..=i].iter_mut().zip(pos_w.iter().zip(buckets)) {
                    *bias = pos_w + ts_w[bucket as usize];
                }
                // What is masked is computed with numbers that are finite.
                bias[i + 1..].fill(0.0);
            }
            bias_gradient[..m * n].fill(0.0);
            for head in 0..heads {
                let (v, q) = (heads * dv + head * dv, 2 * heads * dv + head * dqk);
                let k = q + heads * dqk;
                let at =
                    |row: usize, column: usize| Matrix::rows(&uvqk[(rows.start + row) * stride + column..], stride);
                let dy = Matrix::rows(&dy[(rows.start + first) * width + head * dv..], width);
                weights[..m * n].copy_from_slice(&bias[..m * n]);
                multiply((m, dqk, n), 1.0, at(first, q), at(0, k).transposed(), 1.0, weights, n);
                multiply((m, dv, n), 1.0, dy, at(0, v).transposed(), 0.0, d, n);
                let tile_rows = weights.chunks_exact_mut(n).zip(d.chunks_exact_mut(n));
                for ((weights, d), i) in tile_rows.zip(tile.clone()) {
                    silu_and_gradient(simd, &mut weights[..=i], &mut d[..=i], 1.0 / padded_length as f32);
                    weights[i + 1..].fill(0.0);
                    d[i + 1..].fill(0.0);
                }
                for (sum, d) in bias_gradient[..m * n].iter_mut().zip(&*d) {
                    *sum += d;
                }
                let (weights, d) = (Matrix::rows(weights, n), Matrix::rows(d, n));
                multiply((n, m, dv), 1.0, weights.transposed(), dy, 1.0, &mut gradient[v..], stride);
                multiply((m, n, dqk), 1.0, d, at(0, k), 1.0, &mut gradient[first * stride + q..], stride);
                multiply((n, m, dqk), 1.0, d.transposed(), at(first, q), 1.0, &mut gradient[k..], stride);
            }
            for (d, i) in bias_gradient.chunks_exact(n).zip(tile) {
                let sums = &mut pos_sums[padded_length - 1 - i..][..=i];
                sums.iter_mut().zip(d).for_each(|(sum, d)| *sum += d);
                for (&bucket, d) in buckets[(rows.start + i) * max_length..][..=i].iter().zip(d) {
                    ts_sums[bucket as usize] += d;
                }
            }
        }
    }
}

/// Replaces x by `scale * silu(x)`, and the gradient of that by the gradient of x.
#[inline(always)]
fn silu_and_gradient<S: Simd>(simd: S, x: &mut [f32], gradient: &mut [f32], scale: f32) {
    let (x, x_tail) = S::as_mut_simd_f32s(x);
    let (d, d_tail) = S::as_mut_simd_f32s(gradient);
    let ((x_many, x_single), (d_many, d_single)) = (x.as_chunks_mut::<INTERLEAVED>(), d.as_chunks_mut::<INTERLEAVED>());
    for (x, d) in x_many.iter_mut().zip(d_many) {
        (*x, *d) = of_registers(simd, *x, *d, scale);
    }
    for (x, d) in x_single.iter_mut().zip(d_single) {
        ([*x], [*d]) = of_registers(simd, [*x], [*d], scale);
    }
    if !x_tail.is_empty() {
        let last = ([simd.partial_load_f32s(x_tail)], [simd.partial_load_f32s(d_tail)]);
        let ([x], [d]) = of_registers(simd, last.0, last.1, scale);
        simd.partial_store_f32s(x_tail, x);
        simd.partial_store_f32s(d_tail, d);
    }
}

#[inline(always)]
fn of_registers<S: Simd, const N: usize>(
    simd: S,
    mut x: [S::f32s; N],
    mut d: [S::f32s; N],
    scale: f32,
) -> ([S::f32s; N], [S::f32s; N]) {
    let s = sigmoid(simd, x);
    let scale = simd.splat_f32s(scale);
    for i in 0..N {
        let silu = simd.mul_f32s(x[i], s[i]);
        // s + silu (1 - s)
        let derivative = simd.add_f32s(s[i], simd.negate_mul_add_e_f32s(silu, s[i], silu));
        d[i] = simd.mul_f32s(simd.mul_f32s(d[i], scale), derivative);
        x[i] = simd.mul_f32s(silu, scale);
    }
    (x, d)
}
