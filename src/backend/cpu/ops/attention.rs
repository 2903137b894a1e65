//! Attention over packed sequences. Loops run over keys or over value columns, so that the compiler vectorises them
//! without reordering any sum.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use crate::backend::cpu::simd::math::{Exp, Silu, map_in_place};
use crate::backend::cpu::simd::reduce::greatest;
use crate::ops::{AttentionShape, HstuShape};
use crate::random::Dropout;
use crate::threads;

/// Calls `f(rows of a sequence, its slice of out)` for every sequence, in parallel. `start` as in
/// [`Rows`](crate::ops::Rows); `out` is (rows, width).
fn for_each_sequence(start: &[u32], out: &mut [f32], width: usize, f: impl Fn(Range<usize>, &mut [f32]) + Sync) {
    let mut rest = out;
    let tasks: Vec<_> = sequences(start)
        .map(|rows| {
            let (slice, tail) = std::mem::take(&mut rest).split_at_mut(rows.len() * width);
            rest = tail;
            (rows, slice)
        })
        .collect();
    threads::for_each(tasks.into_iter(), |(rows, slice)| f(rows, slice));
}

/// The rows of each sequence.
pub fn sequences(start: &[u32]) -> impl Iterator<Item = Range<usize>> + '_ {
    let rows_of = |first: usize| start[first..].iter().take_while(|&&s| s as usize == first).count();
    let mut first = 0;
    std::iter::from_fn(move || {
        let rows = first..first + if first < start.len() { rows_of(first) } else { 0 };
        first = rows.end;
        (!rows.is_empty()).then_some(rows)
    })
}

/// One head's keys of a sequence, transposed to (width, length).
fn transposed_keys(values: &[f32], stride: usize, offset: usize, rows: Range<usize>, width: usize) -> Vec<f32> {
    let length = rows.len();
    let mut keys = vec![0.0; width * length];
    for (j, row) in rows.enumerate() {
        for (d, value) in values[row * stride + offset..][..width].iter().enumerate() {
            keys[d * length + j] = *value;
        }
    }
    keys
}

/// weights[j] += scale * (q . k_j) for the first `weights.len()` keys of `keys` (width, length).
#[inline(always)]
fn add_products(weights: &mut [f32], q: &[f32], keys: &[f32], length: usize, scale: f32) {
    for (d, &q) in q.iter().enumerate() {
        for (weight, key) in weights.iter_mut().zip(&keys[d * length..]) {
            *weight += scale * q * key;
        }
    }
}

/// out += sum_j weights[j] * v_j, with v_j at `values[(first_row + j) * stride + offset..]`.
#[inline(always)]
fn add_values(out: &mut [f32], weights: &[f32], values: &[f32], stride: usize, offset: usize, first_row: usize) {
    for (j, &weight) in weights.iter().enumerate() {
        for (out, value) in out.iter_mut().zip(&values[(first_row + j) * stride + offset..]) {
            *out += weight * value;
        }
    }
}

/// See [`Ops::hstu_attention`](crate::ops::Ops::hstu_attention). `buckets` is (rows, max_length).
pub struct HstuAttention<'a> {
    pub uvqk: &'a [f32],
    pub shape: HstuShape,
    pub start: &'a [u32],
    pub max_length: usize,
    pub buckets: &'a [u32],
    pub pos_w: &'a [f32],
    pub ts_w: &'a [f32],
}

impl HstuAttention<'_> {
    /// Adds the result to `out` (rows, heads * dv).
    pub fn run(&self, out: &mut [f32]) {
        let width = self.shape.attended();
        for_each_sequence(self.start, out, width, |rows, out| {
            Arch::new().dispatch(HstuSequence { attention: self, rows, out });
        });
    }
}

struct HstuSequence<'a> {
    attention: &'a HstuAttention<'a>,
    rows: Range<usize>,
    out: &'a mut [f32],
}

impl WithSimd for HstuSequence<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let HstuAttention { uvqk, shape, max_length, buckets, pos_w, ts_w, .. } = *self.attention;
        let HstuShape { heads, dqk, dv, padded_length } = shape;
        let (stride, width, length) = (shape.uvqk(), shape.attended(), self.rows.len());
        let (v, q, k) = (heads * dv, 2 * heads * dv, 2 * heads * dv + heads * dqk);
        let mut bias = vec![0.0; length];
        let mut weights = vec![0.0; length];
        let keys: Vec<Vec<f32>> =
            (0..heads).map(|h| transposed_keys(uvqk, stride, k + h * dqk, self.rows.clone(), dqk)).collect();
        for (i, row) in self.rows.clone().enumerate() {
            for (j, bias) in bias[..=i].iter_mut().enumerate() {
                *bias = pos_w[padded_length - 1 + j - i] + ts_w[buckets[row * max_length + j] as usize];
            }
            for (head, keys) in keys.iter().enumerate() {
                let weights = &mut weights[..=i];
                weights.copy_from_slice(&bias[..=i]);
                add_products(weights, &uvqk[row * stride + q + head * dqk..][..dqk], keys, length, 1.0);
                map_in_place(simd, Silu, weights);
                weights.iter_mut().for_each(|weight| *weight /= padded_length as f32);
                let out = &mut self.out[i * width + head * dv..][..dv];
                add_values(out, weights, uvqk, stride, v + head * dv, self.rows.start);
            }
        }
    }
}

/// See [`Ops::softmax_attention`](crate::ops::Ops::softmax_attention).
pub struct SoftmaxAttention<'a> {
    pub q: &'a [f32],
    pub kv: &'a [f32],
    pub shape: AttentionShape,
    pub start: &'a [u32],
    pub dropout: Option<ProbabilityDropout>,
}

/// Dropout of attention probabilities.
#[derive(Clone, Copy)]
pub struct ProbabilityDropout {
    pub dropout: Dropout,
    /// Elements of a row and head.
    pub stride: usize,
}

impl ProbabilityDropout {
    /// For sequences of up to this many rows.
    pub fn new(dropout: Dropout, max_length: usize) -> ProbabilityDropout {
        ProbabilityDropout { dropout, stride: max_length.next_multiple_of(64) }
    }

    /// Multiplies the probabilities of one of `heads` heads of a row, from the first of the sequence on, by 0 or the scale.
    #[inline(always)]
    pub fn apply(&self, row: usize, (head, heads): (usize, usize), probabilities: &mut [f32]) {
        self.dropout.apply(((row * heads + head) * self.stride) as u64, probabilities);
    }
}

impl SoftmaxAttention<'_> {
    /// Adds the result to `out` (rows, width).
    pub fn run(&self, out: &mut [f32]) {
        for_each_sequence(self.start, out, self.shape.width, |rows, out| {
            Arch::new().dispatch(SoftmaxSequence { attention: self, rows, out });
        });
    }
}

struct SoftmaxSequence<'a> {
    attention: &'a SoftmaxAttention<'a>,
    rows: Range<usize>,
    out: &'a mut [f32],
}

impl WithSimd for SoftmaxSequence<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let SoftmaxAttention { q, kv, shape, dropout, .. } = *self.attention;
        let AttentionShape { width, heads, mask } = shape;
        let (d, length) = (width / heads, self.rows.len());
        let scale = 1.0 / (d as f32).sqrt();
        let mut weights = vec![0.0; length];
        for head in 0..heads {
            let keys = transposed_keys(kv, 2 * width, head * d, self.rows.clone(), d);
            for (i, row) in self.rows.clone().enumerate() {
                let weights = &mut weights[..mask.attended(i, length)];
                weights.fill(0.0);
                add_products(weights, &q[row * width + head * d..][..d], &keys, length, scale);
                let max = greatest(weights);
                weights.iter_mut().for_each(|weight| *weight -= max);
                map_in_place(simd, Exp, weights);
                let sum: f32 = weights.iter().sum();
                weights.iter_mut().for_each(|weight| *weight /= sum);
                if let Some(dropout) = dropout {
                    dropout.apply(row, (head, heads), weights);
                }
                let out = &mut self.out[i * width + head * d..][..d];
                add_values(out, weights, kv, 2 * width, width + head * d, self.rows.start);
            }
        }
    }
}
