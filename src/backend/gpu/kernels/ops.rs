//! The array operations of encoders as dispatches: see [`Ops`] for what each computes.

use std::cmp::Reverse;
use std::sync::LazyLock;

use super::op_kernels::*;
use super::recorder::Recorder;
use crate::Result;
use crate::backend::gpu::device::{Buffer, KernelSpec, grid_1d};
use crate::ops::{Activation, AttentionMask, AttentionShape, DropoutSite, HstuShape, LayerNorm, Linear, Ops, Rows};
use crate::sequence::{SequenceBatch, time_bucket_bounds};
use crate::tensor::Tensor;

/// `WORKGROUP` of the element-wise kernels and of `time_buckets`.
pub(crate) const ELEMENTS: usize = 256;
const BUCKET_WORDS: usize = 64;
/// Rows and columns that a workgroup of `linear` computes: 4 `SIDE`.
pub(super) const LINEAR_SIDE: usize = 64;
/// `ROWS` of the attention kernels.
pub(super) const ATTENTION_ROWS: usize = 64;
/// Columns of a workgroup of theirs, if they are not `WIDE`.
pub(super) const ATTENTION_COLUMNS: usize = 32;
/// Sequences that a workgroup of `gru` computes.
pub(crate) const GRU_SEQUENCES: usize = 4;
/// Bytes of a number of their states.
pub(crate) const GRU_STATE_BYTES: usize = 4 * GRU_SEQUENCES;

impl Recorder {
    fn result(&mut self, n: usize) -> Buffer {
        self.temporary(4 * n as u64)
    }

    /// An element-wise kernel: one thread for each of `n` elements.
    fn element_wise<P: bytemuck::NoUninit>(&mut self, kernel: &KernelSpec, params: &P, buffers: &[&Buffer], n: usize) {
        self.dispatch(kernel, params, buffers, grid_1d(n.div_ceil(ELEMENTS) as u64));
    }

    /// One without weights.
    fn norm(&mut self, kernel: &KernelSpec, x: &Buffer, rows: usize, width: usize, eps: f32) -> Buffer {
        let y = self.result(rows * width);
        let none = self.gpu().placeholder().clone();
        let params = NormParams { rows: rows as u32, width: width as u32, eps, unbiased: 0 };
        self.dispatch(kernel, &params, &[x, &none, &none, &y], grid_1d(rows as u64));
        y
    }
}

/// The number of an activation in `lib/activation.wgsl`.
pub(crate) fn activation_code(activation: Activation) -> u32 {
    match activation {
        Activation::Identity => 0,
        Activation::Silu => 1,
        Activation::Relu => 2,
        Activation::Gelu => 3,
        Activation::GeluTanh => 4,
    }
}

/// Workgroups of an attention: tiles of rows, times heads, times tiles of the `width` columns of one head.
fn attention_grid(rows: usize, heads: usize, width: usize) -> [u32; 3] {
    let columns = if width > ATTENTION_COLUMNS { 2 * ATTENTION_COLUMNS } else { ATTENTION_COLUMNS };
    grid_1d((rows.div_ceil(ATTENTION_ROWS) * heads * width.div_ceil(columns)) as u64)
}

/// Words of one row of time buckets, four to a word.
pub(crate) fn bucket_words(max_length: usize) -> usize {
    max_length.div_ceil(4)
}

/// [`time_bucket_bounds`] as the kernel reads them.
static BUCKET_BOUNDS: LazyLock<Vec<[u32; 2]>> =
    LazyLock::new(|| time_bucket_bounds().into_iter().map(low_high).collect());

fn low_high(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

impl Ops for Recorder {
    type Floats = Buffer;
    type Ints = Buffer;

    fn floats(&mut self, tensor: &Tensor) -> Buffer {
        self.upload(tensor.data())
    }

    fn ints(&mut self, values: &[u32]) -> Buffer {
        self.upload(values)
    }

    fn read(&mut self, array: &Buffer) -> Result<Vec<f32>> {
        Ok(bytemuck::pod_collect_to_vec(&self.read_bytes(array)?))
    }

    fn gather(&mut self, table: &Buffer, width: usize, indices: &Buffer, rows: usize) -> Buffer {
        let n = rows * width;
        let y = self.result(n);
        let params = GatherParams { n: n as u32, width: width as u32 };
        self.element_wise(&GATHER, &params, &[table, indices, &y], n);
        y
    }

    fn embed(
        &mut self,
        items: &Buffer,
        positions: &Buffer,
        width: usize,
        scale: f32,
        ids: &Buffer,
        rows: &Rows<Buffer>,
    ) -> Buffer {
        let n = rows.n_rows * width;
        let y = self.result(n);
        let params = EmbedParams { n: n as u32, width: width as u32, scale };
        self.element_wise(&EMBED, &params, &[items, positions, ids, &rows.start, &y], n);
        y
    }

    fn linear(
        &mut self,
        x: &Buffer,
        rows: usize,
        layer: &Linear<Buffer>,
        activation: Activation,
        residual: Option<&Buffer>,
    ) -> Buffer {
        let y = self.result(rows * layer.n_out);
        let placeholder = self.gpu().placeholder().clone();
        let params = LinearParams {
            rows: rows as u32,
            n_in: layer.n_in as u32,
            n_out: layer.n_out as u32,
            activation: activation_code(activation),
            has_bias: layer.bias.is_some().into(),
            has_residual: residual.is_some().into(),
        };
        let bias = layer.bias.as_ref().unwrap_or(&placeholder);
        let buffers = [x, &layer.weight, bias, residual.unwrap_or(&placeholder), &y];
        let workgroups = rows.div_ceil(LINEAR_SIDE) * layer.n_out.div_ceil(LINEAR_SIDE);
        self.dispatch(&LINEAR, &params, &buffers, grid_1d(workgroups as u64));
        y
    }

    fn layer_norm(&mut self, x: &Buffer, rows: usize, width: usize, eps: f32) -> Buffer {
        self.norm(&LAYER_NORM, x, rows, width, eps)
    }

    fn affine_layer_norm(&mut self, x: &Buffer, rows: usize, norm: &LayerNorm<Buffer>) -> Buffer {
        let y = self.result(rows * norm.width);
        let (width, eps, unbiased) = (norm.width as u32, norm.eps, norm.unbiased.into());
        let params = NormParams { rows: rows as u32, width, eps, unbiased };
        self.dispatch(&AFFINE_LAYER_NORM, &params, &[x, &norm.weight, &norm.bias, &y], grid_1d(rows as u64));
        y
    }

    fn l2_norm(&mut self, x: &Buffer, rows: usize, width: usize, eps: f32) -> Buffer {
        self.norm(&L2_NORM, x, rows, width, eps)
    }

    fn glu(&mut self, x: &Buffer, rows: usize, hidden: usize, activation: Activation) -> Buffer {
        let n = rows * hidden;
        let y = self.result(n);
        let params = GluParams { n: n as u32, hidden: hidden as u32, activation: activation_code(activation) };
        self.element_wise(&GLU, &params, &[x, &y], n);
        y
    }

    fn concat(&mut self, parts: &[(&Buffer, usize)], rows: usize) -> Buffer {
        let total: usize = parts.iter().map(|(_, width)| width).sum();
        let y = self.result(rows * total);
        let mut offset = 0;
        for (part, width) in parts {
            let n = rows * width;
            let (width32, total, start) = (*width as u32, total as u32, offset as u32);
            let params = ConcatParams { n: n as u32, width: width32, total, offset: start };
            self.element_wise(&CONCAT, &params, &[part, &y], n);
            offset += width;
        }
        y
    }

    fn time_buckets(&mut self, batch: &SequenceBatch, rows: &Rows<Buffer>) -> Buffer {
        let words = bucket_words(rows.max_length);
        let n = rows.n_rows * words;
        let y = self.result(n);
        let pairs = |times: &[i64]| times.iter().map(|&time| low_high(time as u64)).collect::<Vec<_>>();
        let timestamps = self.upload(&pairs(&batch.timestamps));
        let next_timestamps = self.upload(&pairs(&batch.next_timestamps));
        let bounds = self.upload(&BUCKET_BOUNDS);
        let params = TimeBucketsParams { n: n as u32, words: words as u32, n_bounds: BUCKET_BOUNDS.len() as u32 };
        let buffers = [&timestamps, &next_timestamps, &rows.start, &bounds, &y];
        self.dispatch(&TIME_BUCKETS, &params, &buffers, grid_1d(n.div_ceil(BUCKET_WORDS) as u64));
        y
    }

    fn hstu_attention(
        &mut self,
        uvqk: &Buffer,
        shape: HstuShape,
        rows: &Rows<Buffer>,
        buckets: &Buffer,
        pos_w: &Buffer,
        ts_w: &Buffer,
    ) -> Buffer {
        let y = self.result(rows.n_rows * shape.attended());
        let params = HstuAttentionParams {
            rows: rows.n_rows as u32,
            heads: shape.heads as u32,
            dqk: shape.dqk as u32,
            dv: shape.dv as u32,
            padded_length: shape.padded_length as u32,
            words: bucket_words(rows.max_length) as u32,
        };
        let buffers = [uvqk, &rows.start, buckets, pos_w, ts_w, &y];
        let kernel = if shape.dv > ATTENTION_COLUMNS { &HSTU_ATTENTION_WIDE } else { &HSTU_ATTENTION };
        self.dispatch(kernel, &params, &buffers, attention_grid(rows.n_rows, shape.heads, shape.dv));
        y
    }

    fn hstu_gate(
        &mut self,
        uvqk: &Buffer,
        attended: &Buffer,
        shape: HstuShape,
        n_rows: usize,
        eps: f32,
        concat_ua: bool,
    ) -> Buffer {
        let width = shape.attended();
        let a = self.layer_norm(attended, n_rows, width, eps);
        let n = n_rows * width;
        let y = self.result(if concat_ua { 3 * n } else { n });
        let (width, stride) = (width as u32, shape.uvqk() as u32);
        let params = HstuGateParams { n: n as u32, width, stride, concat_ua: concat_ua.into() };
        self.element_wise(&HSTU_GATE, &params, &[uvqk, &a, &y], n);
        y
    }

    fn softmax_attention(
        &mut self,
        q: &Buffer,
        kv: &Buffer,
        shape: AttentionShape,
        rows: &Rows<Buffer>,
        _: DropoutSite,
    ) -> Buffer {
        let AttentionShape { width, heads, mask } = shape;
        let y = self.result(rows.n_rows * width);
        let d = width / heads;
        let params = SoftmaxAttentionParams { rows: rows.n_rows as u32, heads: heads as u32, d: d as u32 };
        let kernel = match (mask, d > ATTENTION_COLUMNS) {
            (AttentionMask::Causal, false) => &CAUSAL_ATTENTION,
            (AttentionMask::Causal, true) => &CAUSAL_ATTENTION_WIDE,
            (AttentionMask::Bidirectional, false) => &BIDIRECTIONAL_ATTENTION,
            (AttentionMask::Bidirectional, true) => &BIDIRECTIONAL_ATTENTION_WIDE,
        };
        self.dispatch(kernel, &params, &[q, kv, &rows.start, &y], attention_grid(rows.n_rows, heads, d));
        y
    }

    fn gru(&mut self, x: &Buffer, recurrent: &Linear<Buffer>, offsets: &[u32]) -> Buffer {
        let n_rows = offsets.last().map_or(0, |&end| end as usize);
        let y = self.result(n_rows * recurrent.n_in);
        let sequences = by_length(offsets);
        let groups = sequences.len() / GRU_SEQUENCES;
        let sequences = self.upload(&sequences);
        let placeholder = self.gpu().placeholder().clone();
        let params = GruParams { groups: groups as u32, has_bias: recurrent.bias.is_some().into() };
        let bias = recurrent.bias.as_ref().unwrap_or(&placeholder);
        let buffers = [x, &recurrent.weight, bias, &sequences, &y];
        self.dispatch(&gru(recurrent.n_in), &params, &buffers, grid_1d(groups as u64));
        y
    }
}

/// First row and length of each sequence, the longest first, filled up to whole groups with sequences of length 0.
pub(crate) fn by_length(offsets: &[u32]) -> Vec<[u32; 2]> {
    let mut sequences: Vec<[u32; 2]> = offsets.windows(2).map(|pair| [pair[0], pair[1] - pair[0]]).collect();
    sequences.sort_by_key(|&[_, length]| Reverse(length));
    sequences.resize(sequences.len().next_multiple_of(GRU_SEQUENCES), [0, 0]);
    sequences
}
