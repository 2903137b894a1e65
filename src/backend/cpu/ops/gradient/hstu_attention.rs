//! Gradient of HSTU's attention. Weights are computed again, tile by tile, so that none are stored.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::linear::add_parts;
use crate::backend::cpu::ops::attention::{HstuAttention, sequences};
use crate::backend::cpu::ops::shared::{Memory, Shared};
use crate::backend::cpu::ops::tile_product::{Left, PADDED, add_tile_product, copy_rows, copy_transposed};
use crate::backend::cpu::simd;
use crate::backend::cpu::simd::math::{INTERLEAVED, sigmoid};
use crate::ops::HstuShape;
use crate::threads;

/// Rows that attend at a time. Half of a tile's last columns are masked, so larger ones waste more of short sequences.
const TILE: usize = PADDED;

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
        let scratch = memory.unspecified(Extents::new(attention.shape, sequence.rows.len()).all());
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

struct Differentiated<'a> {
    sequence: Sequence<'a>,
    scratch: Shared,
}

/// Arrays of one head. Lengths and widths are multiples of [`PADDED`], but for those that only a product's depth runs over.
struct Head<'a> {
    /// (length, dqk)
    q: &'a mut [f32],
    k: &'a mut [f32],
    q_gradient: &'a mut [f32],
    k_gradient: &'a mut [f32],
    /// (length, dv)
    dy: &'a mut [f32],
    v_gradient: &'a mut [f32],
    /// (dqk, length)
    k_transposed: &'a mut [f32],
    /// (dv, length)
    v_transposed: &'a mut [f32],
}

/// Extents of the arrays of a head.
#[derive(Clone, Copy)]
struct Extents {
    shape: HstuShape,
    length: usize,
    /// The same, padded.
    padded: usize,
    dqk: usize,
    dv: usize,
}

impl Extents {
    fn new(shape: HstuShape, length: usize) -> Extents {
        let [padded, dqk, dv] = [length, shape.dqk, shape.dv].map(|n| n.next_multiple_of(PADDED));
        Extents { shape, length, padded, dqk, dv }
    }

    /// Floats of a head.
    fn head(&self) -> usize {
        self.padded * (4 * self.dqk + 2 * self.dv + self.shape.dqk + self.shape.dv)
    }

    /// Floats of an array (TILE, length).
    fn tile(&self) -> usize {
        TILE * self.padded
    }

    /// Floats of all heads and of four tiles.
    fn all(&self) -> usize {
        self.shape.heads * self.head() + 4 * self.tile()
    }

    /// The arrays of a head, filled from those of its sequence (length, uvqk) and (length, heads * dv).
    fn fill<'a>(&self, head: usize, uvqk: &[f32], dy: &[f32], values: &'a mut [f32]) -> Head<'a> {
        let HstuShape { heads, dqk, dv, .. } = self.shape;
        let mut rest = values;
        let mut take = |n: usize| {
            let (part, others) = std::mem::take(&mut rest).split_at_mut(self.padded * n);
            rest = others;
            part
        };
        let [q, k, q_gradient, k_gradient] = [(); 4].map(|()| take(self.dqk));
        let [of_dy, v_gradient] = [(); 2].map(|()| take(self.dv));
        let (k_transposed, v_transposed) = (take(dqk), take(dv));
        let (length, stride) = (self.length, self.shape.uvqk());
        let (of_v, of_q) = (&uvqk[(heads + head) * dv..], &uvqk[2 * heads * dv + head * dqk..]);
        let of_k = &of_q[heads * dqk..];
        copy_rows(of_q, stride, dqk, length, self.dqk, q);
        copy_rows(of_k, stride, dqk, length, self.dqk, k);
        copy_rows(&dy[head * dv..], heads * dv, dv, length, self.dv, of_dy);
        copy_transposed(of_k, stride, dqk, length, self.padded, k_transposed);
        copy_transposed(of_v, stride, dv, length, self.padded, v_transposed);
        for gradient in [&mut *q_gradient, &mut *k_gradient, &mut *v_gradient] {
            gradient.fill(0.0);
        }
        Head { q, k, q_gradient, k_gradient, dy: of_dy, v_gradient, k_transposed, v_transposed }
    }

    /// Adds the gradients of a head to that of its sequence (length, uvqk).
    fn add_to(&self, head: usize, of: &Head, gradient: &mut [f32]) {
        let HstuShape { heads, dqk, dv, .. } = self.shape;
        let (v, q) = ((heads + head) * dv, 2 * heads * dv + head * dqk);
        let k = q + heads * dqk;
        for (row, gradient) in gradient.chunks_exact_mut(self.shape.uvqk()).enumerate() {
            let mut add = |at: usize, width: usize, part: &[f32], padded: usize| {
                let part = &part[row * padded..][..width];
                gradient[at..at + width].iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
            };
            add(v, dv, of.v_gradient, self.dv);
            add(q, dqk, of.q_gradient, self.dqk);
            add(k, dqk, of.k_gradient, self.dqk);
        }
    }
}

impl WithSimd for Differentiated<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let Sequence { attention, dy, rows, gradient, bias: bias_sums } = self.sequence;
        let HstuAttention { uvqk, shape, max_length, buckets, pos_w, ts_w, .. } = *attention;
        let HstuShape { heads, padded_length, .. } = shape;
        let extents = Extents::new(shape, rows.len());
        let (pos_sums, ts_sums) = bias_sums.split_at_mut(pos_w.len());
        let (of_heads, tiles) = self.scratch.make_mut().split_at_mut(heads * extents.head());
        let uvqk = &uvqk[rows.start * shape.uvqk()..];
        let dy = &dy[rows.start * shape.attended()..];
        let mut of_heads: Vec<Head> = of_heads
            .chunks_exact_mut(extents.head())
            .enumerate()
            .map(|(head, values)| extents.fill(head, uvqk, dy, values))
            .collect();
        let (bias, tiles) = tiles.split_at_mut(extents.tile());
        let (bias_gradient, tiles) = tiles.split_at_mut(extents.tile());
        // Arguments of SiLU, then weights; gradients of weights, then of arguments.
        let (weights, d) = tiles.split_at_mut(extents.tile());
        for first in (0..rows.len()).step_by(TILE) {
            // Columns of the tile: no row of it attends to later ones. Rows of the tile that the sequence lacks have no weights.
            let n = first + TILE;
            let tile = first..rows.len().min(n);
            bias[..TILE * n].fill(0.0);
            bias_gradient[..TILE * n].fill(0.0);
            for (bias, i) in bias.chunks_exact_mut(n).zip(tile.clone()) {
                let buckets = &buckets[(rows.start + i) * max_length..];
                let pos_w = &pos_w[padded_length - 1 - i..];
                for (bias, (pos_w, &bucket)) in bias[..=i].iter_mut().zip(pos_w.iter().zip(buckets)) {
                    *bias = pos_w + ts_w[bucket as usize];
                }
            }
            for head in &mut of_heads {
                let Extents { padded, dqk, dv, .. } = extents;
                let (q, dy) = (&head.q[first * dqk..], &head.dy[first * dv..]);
                weights[..TILE * n].copy_from_slice(&bias[..TILE * n]);
                d[..TILE * n].fill(0.0);
                let by_k = (TILE, shape.dqk, n);
                add_tile_product(simd, by_k, Left::Rows(q, dqk), (head.k_transposed, padded), (weights, n));
                let by_v = (TILE, shape.dv, n);
                add_tile_product(simd, by_v, Left::Rows(dy, dv), (head.v_transposed, padded), (d, n));
                for (row, (weights, d)) in weights.chunks_exact_mut(n).zip(d.chunks_exact_mut(n)).take(TILE).enumerate()
                {
                    let attended = if first + row < rows.len() { first + row + 1 } else { 0 };
                    let scale = 1.0 / padded_length as f32;
                    silu_and_gradient(simd, &mut weights[..attended], &mut d[..attended], scale);
                    weights[attended..].fill(0.0);
                    d[attended..].fill(0.0);
                }
                for (sum, d) in bias_gradient[..TILE * n].iter_mut().zip(&*d) {
                    *sum += d;
                }
                let q_gradient = (&mut head.q_gradient[first * dqk..], dqk);
                add_tile_product(simd, (TILE, n, dqk), Left::Rows(d, n), (head.k, dqk), q_gradient);
                let k_gradient = (&mut *head.k_gradient, dqk);
                add_tile_product(simd, (n, TILE, dqk), Left::Columns(d, n), (q, dqk), k_gradient);
                let v_gradient = (&mut *head.v_gradient, dv);
                add_tile_product(simd, (n, TILE, dv), Left::Columns(weights, n), (dy, dv), v_gradient);
            }
            for (d, i) in bias_gradient.chunks_exact(n).zip(tile) {
                let sums = &mut pos_sums[padded_length - 1 - i..][..=i];
                sums.iter_mut().zip(d).for_each(|(sum, d)| *sum += d);
                for (&bucket, d) in buckets[(rows.start + i) * max_length..][..=i].iter().zip(d) {
                    ts_sums[bucket as usize] += d;
                }
            }
        }
        for (head, of) in of_heads.iter().enumerate() {
            extents.add_to(head, of, gradient);
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
