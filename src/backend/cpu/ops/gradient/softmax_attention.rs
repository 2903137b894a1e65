//! Gradient of softmax attention. Probabilities are computed again, tile by tile, so that none are stored.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::backend::cpu::ops::attention::{SoftmaxAttention, sequences};
use crate::backend::cpu::ops::gemm::{Matrix, multiply};
use crate::backend::cpu::ops::shared::{Memory, Shared};
use crate::backend::cpu::simd::math::{Exp, map_in_place};
use crate::backend::cpu::simd::{self, reduce};
use crate::ops::AttentionShape;
use crate::threads;

/// Rows that attend at a time.
const TILE: usize = 32;

/// See [`GradientOps::softmax_attention_gradient`](crate::ops::GradientOps::softmax_attention_gradient).
pub fn softmax_attention_gradient(
    memory: &Memory,
    attention: &SoftmaxAttention,
    dy: &[f32],
    [q, kv]: [&mut Option<Shared>; 2],
) {
    let (rows, width) = (attention.start.len(), attention.shape.width);
    let mut q_rest = memory.gradient(q, rows * width);
    let mut kv_rest = memory.gradient(kv, rows * 2 * width);
    let mut tasks = Vec::new();
    for rows in sequences(attention.start) {
        let (q_gradient, q_others) = q_rest.split_at_mut(rows.len() * width);
        let (kv_gradient, kv_others) = kv_rest.split_at_mut(rows.len() * 2 * width);
        (q_rest, kv_rest) = (q_others, kv_others);
        tasks.push((rows, q_gradient, kv_gradient));
    }
    threads::for_each(tasks.into_iter(), |(rows, q_gradient, kv_gradient)| {
        let scratch = memory.unspecified(3 * TILE * rows.len());
        simd::run(Sequence { attention, dy, rows, q_gradient, kv_gradient, scratch });
    });
}

struct Sequence<'a> {
    attention: &'a SoftmaxAttention<'a>,
    dy: &'a [f32],
    rows: Range<usize>,
    /// (rows, width): this is added to.
    q_gradient: &'a mut [f32],
    /// (rows, 2 * width): this is added to.
    kv_gradient: &'a mut [f32],
    /// Three arrays (TILE, length).
    scratch: Shared,
}

impl WithSimd for Sequence<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let SoftmaxAttention { q, kv, shape, dropout, .. } = *self.attention;
        let AttentionShape { width, heads, mask } = shape;
        let (start, length, d) = (self.rows.start, self.rows.len(), width / heads);
        let scale = 1.0 / (d as f32).sqrt();
        let (probabilities, scratch) = self.scratch.make_mut().split_at_mut(TILE * length);
        let (dropped, gradient) = scratch.split_at_mut(TILE * length);
        for head in 0..heads {
            let keys = Matrix::rows(&kv[start * 2 * width + head * d..], 2 * width);
            let values = Matrix::rows(&kv[start * 2 * width + width + head * d..], 2 * width);
            for first in (0..length).step_by(TILE) {
                let tile = first..length.min(first + TILE);
                let (m, n) = (tile.len(), mask.attended(tile.end - 1, length));
                let queries = Matrix::rows(&q[(start + first) * width + head * d..], width);
                let dy = Matrix::rows(&self.dy[(start + first) * width + head * d..], width);
                multiply((m, d, n), scale, queries, keys.transposed(), 0.0, probabilities, n);
                multiply((m, d, n), 1.0, dy, values.transposed(), 0.0, gradient, n);
                let tile_rows = probabilities.chunks_exact_mut(n).zip(dropped.chunks_exact_mut(n));
                for (((p, dropped), gradient), i) in tile_rows.zip(gradient.chunks_exact_mut(n)).zip(tile) {
                    let attended = mask.attended(i, length);
                    softmax(simd, &mut p[..attended]);
                    p[attended..].fill(0.0);
                    match dropout {
                        Some(dropout) => {
                            // What probabilities and their gradients are multiplied by, then the probabilities.
                            dropped.fill(0.0);
                            dropped[..attended].fill(1.0);
                            dropout.apply(start + i, (head, heads), &mut dropped[..attended]);
                            gradient.iter_mut().zip(&*dropped).for_each(|(gradient, factor)| *gradient *= factor);
                            dropped.iter_mut().zip(&*p).for_each(|(dropped, p)| *dropped *= p);
                        }
                        None => dropped.copy_from_slice(p),
                    }
                    let (g, p) = (&mut gradient[..attended], &p[..attended]);
                    let mean = reduce::sum_of_products(g, p, 0.0, 0.0);
                    g.iter_mut().zip(p).for_each(|(g, p)| *g = p * (*g - mean));
                    gradient[attended..].fill(0.0);
                }
                let (dropped, gradient) = (Matrix::rows(dropped, n), Matrix::rows(gradient, n));
                let of_values = &mut self.kv_gradient[width + head * d..];
                multiply((n, m, d), 1.0, dropped.transposed(), dy, 1.0, of_values, 2 * width);
                let of_queries = &mut self.q_gradient[first * width + head * d..];
                multiply((m, n, d), scale, gradient, keys, 1.0, of_queries, width);
                let of_keys = &mut self.kv_gradient[head * d..];
                multiply((n, m, d), scale, gradient.transposed(), queries, 1.0, of_keys, 2 * width);
            }
        }
    }
}

/// Softmax in place.
#[inline(always)]
fn softmax<S: Simd>(simd: S, values: &mut [f32]) {
    let max = reduce::greatest(values);
    values.iter_mut().for_each(|value| *value -= max);
    map_in_place(simd, Exp, values);
    let sum = reduce::sum(values);
    values.iter_mut().for_each(|value| *value /= sum);
}
