//! The operations of encoders, as [`Recorder`] has them, with integers that are known to the host, too.

use std::sync::Arc;

use crate::Result;
use crate::backend::gpu::device::{Buffer, Gpu, KernelSpec, grid_1d};
use crate::backend::gpu::kernels::{ELEMENTS, Recorder};
use crate::ops::{Activation, AttentionShape, DropoutSite, HstuShape, LayerNorm, Linear, Ops, Rows};
use crate::sequence::SequenceBatch;
use crate::tensor::Tensor;

/// See [`GpuTrainingOps::with_round`].
const ROUND: usize = 1 << 25;

/// The operations of a GPU on which a model is trained.
#[derive(Debug)]
pub struct GpuTrainingOps {
    pub(super) recorder: Recorder,
    /// Numbers that the pairs of a round of a loss take.
    pub(super) round: usize,
}

/// Integers on the device, and on the host if they came from there.
#[derive(Clone, Debug)]
pub struct GpuInts {
    pub(super) buffer: Buffer,
    pub(super) values: Arc<[u32]>,
}

impl GpuTrainingOps {
    /// Those of an open device.
    pub fn new(gpu: &Arc<Gpu>) -> GpuTrainingOps {
        GpuTrainingOps { recorder: Recorder::new(gpu), round: ROUND }
    }

    /// The same with other rounds: the pairs of positions and items of a loss are computed so many numbers at a time, by default
    /// 2^25, which take 128 MiB.
    #[must_use]
    pub fn with_round(self, numbers: usize) -> GpuTrainingOps {
        GpuTrainingOps { round: numbers, ..self }
    }

    pub(super) fn result(&mut self, n: usize) -> Buffer {
        self.recorder.temporary(4 * n as u64)
    }

    /// An array of zeros.
    pub(super) fn cleared(&mut self, n: usize) -> Buffer {
        let y = self.result(n);
        self.recorder.clear(&y);
        y
    }

    pub(super) fn placeholder(&self) -> Buffer {
        self.recorder.gpu().placeholder().clone()
    }

    /// An element-wise kernel: one thread for each of `n` elements.
    pub(super) fn element_wise<P: bytemuck::NoUninit>(
        &mut self,
        kernel: &KernelSpec,
        params: &P,
        buffers: &[&Buffer],
        n: usize,
    ) {
        self.recorder.dispatch(kernel, params, buffers, grid_1d(n.div_ceil(ELEMENTS) as u64));
    }
}

/// Elements of an array.
pub(super) fn len(array: &Buffer) -> usize {
    array.bytes() as usize / 4
}

pub(super) fn on_device(rows: &Rows<GpuInts>) -> Rows<Buffer> {
    Rows { n_rows: rows.n_rows, max_length: rows.max_length, start: rows.start.buffer.clone() }
}

impl Ops for GpuTrainingOps {
    type Floats = Buffer;
    type Ints = GpuInts;

    fn floats(&mut self, tensor: &Tensor) -> Buffer {
        self.recorder.floats(tensor)
    }

    fn ints(&mut self, values: &[u32]) -> GpuInts {
        GpuInts { buffer: self.recorder.ints(values), values: values.into() }
    }

    fn read(&mut self, array: &Buffer) -> Result<Vec<f32>> {
        self.recorder.read(array)
    }

    fn gather(&mut self, table: &Buffer, width: usize, indices: &GpuInts, rows: usize) -> Buffer {
        self.recorder.gather(table, width, &indices.buffer, rows)
    }

    fn embed(
        &mut self,
        items: &Buffer,
        positions: &Buffer,
        width: usize,
        scale: f32,
        ids: &GpuInts,
        rows: &Rows<GpuInts>,
    ) -> Buffer {
        self.recorder.embed(items, positions, width, scale, &ids.buffer, &on_device(rows))
    }

    fn linear(
        &mut self,
        x: &Buffer,
        rows: usize,
        layer: &Linear<Buffer>,
        activation: Activation,
        residual: Option<&Buffer>,
    ) -> Buffer {
        self.recorder.linear(x, rows, layer, activation, residual)
    }

    fn layer_norm(&mut self, x: &Buffer, rows: usize, width: usize, eps: f32) -> Buffer {
        self.recorder.layer_norm(x, rows, width, eps)
    }

    fn affine_layer_norm(&mut self, x: &Buffer, rows: usize, norm: &LayerNorm<Buffer>) -> Buffer {
        self.recorder.affine_layer_norm(x, rows, norm)
    }

    fn l2_norm(&mut self, x: &Buffer, rows: usize, width: usize, eps: f32) -> Buffer {
        self.recorder.l2_norm(x, rows, width, eps)
    }

    fn glu(&mut self, x: &Buffer, rows: usize, hidden: usize, activation: Activation) -> Buffer {
        self.recorder.glu(x, rows, hidden, activation)
    }

    fn concat(&mut self, parts: &[(&Buffer, usize)], rows: usize) -> Buffer {
        self.recorder.concat(parts, rows)
    }

    fn time_buckets(&mut self, batch: &SequenceBatch, rows: &Rows<GpuInts>) -> GpuInts {
        GpuInts { buffer: self.recorder.time_buckets(batch, &on_device(rows)), values: Arc::default() }
    }

    fn hstu_attention(
        &mut self,
        uvqk: &Buffer,
        shape: HstuShape,
        rows: &Rows<GpuInts>,
        buckets: &GpuInts,
        pos_w: &Buffer,
        ts_w: &Buffer,
    ) -> Buffer {
        self.recorder.hstu_attention(uvqk, shape, &on_device(rows), &buckets.buffer, pos_w, ts_w)
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
        self.recorder.hstu_gate(uvqk, attended, shape, n_rows, eps, concat_ua)
    }

    fn softmax_attention(
        &mut self,
        q: &Buffer,
        kv: &Buffer,
        shape: AttentionShape,
        rows: &Rows<GpuInts>,
        site: DropoutSite,
    ) -> Buffer {
        self.recorder.softmax_attention(q, kv, shape, &on_device(rows), site)
    }

    fn gru(&mut self, x: &Buffer, recurrent: &Linear<Buffer>, offsets: &[u32]) -> Buffer {
        self.recorder.gru(x, recurrent, offsets)
    }
}
