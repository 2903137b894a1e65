//! Gradients of attention, one head after the other: the weights of all its pairs are computed again, and then sums by them.

use super::kernels::*;
use super::ops::{GpuInts, GpuTrainingOps, len};
use crate::backend::gpu::device::{Buffer, grid_1d};
use crate::backend::gpu::kernels::bucket_words;
use crate::ops::{AttentionMask, HstuAttentionInputs, SoftmaxAttentionInputs};

/// Rows whose part of the gradients of HSTU's biases is one sum.
const BIAS_CHUNK: usize = 64;

/// Some columns of an array: number of all, the first, and how many.
#[derive(Clone, Copy)]
struct Columns {
    stride: usize,
    first: usize,
    width: usize,
}

/// How weights are applied: by which rows, in which direction.
struct Sums<'a> {
    start: &'a Buffer,
    rows: usize,
    length: usize,
    is_causal: bool,
}

impl Sums<'_> {
    /// Writes to columns of y the sums of columns of x by weights (rows, length) of the rows that each row attends to, or that attend
    /// to it.
    fn write(
        &self,
        ops: &mut GpuTrainingOps,
        (weights, is_transposed): (&Buffer, bool),
        (x, from): (&Buffer, Columns),
        (y, to): (&Buffer, Columns),
    ) {
        let n = self.rows * from.width;
        let params = AttentionSumsParams {
            n: n as u32,
            rows: self.rows as u32,
            width: from.width as u32,
            length: self.length as u32,
            x_stride: from.stride as u32,
            x_first: from.first as u32,
            y_stride: to.stride as u32,
            y_first: to.first as u32,
            transposed: is_transposed.into(),
            causal: self.is_causal.into(),
        };
        ops.element_wise(&ATTENTION_SUMS, &params, &[weights, self.start, x, y], n);
    }
}

/// A softmax attention.
pub struct Attention<'a> {
    inputs: &'a SoftmaxAttentionInputs<'a, Buffer, GpuInts>,
    sums: Sums<'a>,
    d: usize,
}

impl<'a> Attention<'a> {
    pub fn of(inputs: &'a SoftmaxAttentionInputs<Buffer, GpuInts>) -> Attention<'a> {
        let sums = Sums {
            start: &inputs.rows.start.buffer,
            rows: inputs.rows.n_rows,
            length: inputs.rows.max_length,
            is_causal: inputs.shape.mask == AttentionMask::Causal,
        };
        Attention { inputs, sums, d: inputs.shape.width / inputs.shape.heads }
    }

    /// Columns of a head, in q (part 0), or of keys (0) and values (1) in kv.
    fn columns(&self, parts: usize, part: usize, head: usize) -> Columns {
        let width = self.inputs.shape.width;
        Columns { stride: parts * width, first: part * width + head * self.d, width: self.d }
    }

    /// (rows, length) twice: probabilities after dropout, and, given dy, the derivatives with respect to products of queries and keys.
    fn pairs(&self, ops: &mut GpuTrainingOps, head: usize, dy: Option<&Buffer>) -> [Buffer; 2] {
        let SoftmaxAttentionInputs { q, kv, shape, rows, dropout } = *self.inputs;
        let n = rows.n_rows * rows.max_length;
        let (weights, none) = (ops.result(n), ops.placeholder());
        let slopes = ops.result(if dy.is_some() { n } else { 4 });
        let [key_0, key_1] = dropout.map_or([0; 2], |dropout| dropout.key());
        let params = SoftmaxPairsParams {
            rows: rows.n_rows as u32,
            heads: shape.heads as u32,
            d: self.d as u32,
            head: head as u32,
            length: rows.max_length as u32,
            causal: self.sums.is_causal.into(),
            mask_stride: if dropout.is_some() { rows.max_length.next_multiple_of(64) as u32 } else { 0 },
            threshold: dropout.map_or(0, |dropout| dropout.threshold()),
            scale: dropout.map_or(1.0, |dropout| dropout.scale()),
            key_0,
            key_1,
        };
        let kernel = if dy.is_some() { &SOFTMAX_PAIRS } else { &SOFTMAX_WEIGHTS };
        let buffers = [q, kv, self.sums.start, dy.unwrap_or(&none), &weights, &slopes];
        ops.recorder.dispatch(kernel, &params, &buffers, grid_1d(rows.n_rows as u64));
        [weights, slopes]
    }

    /// (rows, width): the attention with dropout.
    pub fn dropped_out(&self, ops: &mut GpuTrainingOps) -> Buffer {
        let y = ops.result(len(self.inputs.q));
        for head in 0..self.inputs.shape.heads {
            let [weights, _] = self.pairs(ops, head, None);
            let (values, result) = (self.columns(2, 1, head), self.columns(1, 0, head));
            self.sums.write(ops, (&weights, false), (self.inputs.kv, values), (&y, result));
        }
        y
    }
}

/// Of q and of kv.
pub fn softmax_attention_gradient(
    ops: &mut GpuTrainingOps,
    inputs: &SoftmaxAttentionInputs<Buffer, GpuInts>,
    dy: &Buffer,
) -> [Buffer; 2] {
    let attention = Attention::of(inputs);
    let [of_q, of_kv] = [ops.result(len(inputs.q)), ops.result(len(inputs.kv))];
    for head in 0..inputs.shape.heads {
        let [weights, slopes] = attention.pairs(ops, head, Some(dy));
        let columns = |parts, part| attention.columns(parts, part, head);
        let (own, keys, values) = (columns(1, 0), columns(2, 0), columns(2, 1));
        attention.sums.write(ops, (&slopes, false), (inputs.kv, keys), (&of_q, own));
        attention.sums.write(ops, (&slopes, true), (inputs.q, own), (&of_kv, keys));
        attention.sums.write(ops, (&weights, true), (dy, own), (&of_kv, values));
    }
    [of_q, of_kv]
}

/// Of uvqk, `pos_w` and `ts_w`.
pub fn hstu_attention_gradient(
    ops: &mut GpuTrainingOps,
    inputs: &HstuAttentionInputs<Buffer, GpuInts>,
    dy: &Buffer,
) -> [Buffer; 3] {
    let HstuAttentionInputs { uvqk, shape, rows, buckets, pos_w, ts_w } = *inputs;
    let (n_rows, length, heads) = (rows.n_rows, rows.max_length, shape.heads);
    let (start, words) = (&rows.start.buffer, bucket_words(length) as u32);
    let n = n_rows * length;
    // Parts that are bound begin at multiples of 256 bytes.
    let plane = n.next_multiple_of(64);
    let pairs = ops.result(3 * plane);
    let part = |part: usize| pairs.slice(4 * (part * plane) as u64..4 * (part * plane + n) as u64);
    let [weights, slopes, of_biases] = [0, 1, 2].map(part);
    let stride = shape.uvqk();
    let of_uvqk = ops.cleared(n_rows * stride);
    let sums = Sums { start, rows: n_rows, length, is_causal: true };
    for head in 0..heads {
        let params = HstuPairsParams {
            n: n as u32,
            length: length as u32,
            heads: heads as u32,
            dqk: shape.dqk as u32,
            dv: shape.dv as u32,
            padded_length: shape.padded_length as u32,
            words,
            head: head as u32,
            plane: plane as u32,
        };
        let buffers = [uvqk, start, &buckets.buffer, pos_w, ts_w, dy, &pairs];
        ops.element_wise(&HSTU_PAIRS, &params, &buffers, n);
        let values = Columns { stride, first: (heads + head) * shape.dv, width: shape.dv };
        let queries = Columns { stride, first: 2 * heads * shape.dv + head * shape.dqk, width: shape.dqk };
        let keys = Columns { first: queries.first + heads * shape.dqk, ..queries };
        let attended = Columns { stride: heads * shape.dv, first: head * shape.dv, width: shape.dv };
        sums.write(ops, (&slopes, false), (uvqk, keys), (&of_uvqk, queries));
        sums.write(ops, (&slopes, true), (uvqk, queries), (&of_uvqk, keys));
        sums.write(ops, (&weights, true), (dy, attended), (&of_uvqk, values));
    }
    let (n_pos, n_ts) = (len(pos_w), len(ts_w));
    let (n_biases, chunks) = (n_pos + n_ts, n_rows.div_ceil(BIAS_CHUNK));
    let parts = ops.result(chunks * n_biases);
    let params = HstuBiasGradientParams {
        n: (chunks * n_biases) as u32,
        rows: n_rows as u32,
        length: length as u32,
        padded_length: shape.padded_length as u32,
        words,
        chunk: BIAS_CHUNK as u32,
    };
    let buffers = [&of_biases, start, &buckets.buffer, &parts];
    ops.element_wise(&HSTU_BIAS_GRADIENT, &params, &buffers, chunks * n_biases);
    let biases = ops.column_sums(&parts, chunks, n_biases);
    [of_uvqk, ops.columns(&biases, 1, n_biases, 0, n_pos), ops.columns(&biases, 1, n_biases, n_pos, n_ts)]
}
