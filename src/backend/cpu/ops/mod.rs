//! [`Ops`] on host slices.

mod activation;
mod adamw;
mod attention;
pub mod gemm;
mod gradient;
mod gru;
mod shared;
mod tile_product;

use std::sync::Arc;

use crate::Result;
use crate::backend::cpu::simd;
use crate::backend::{AdamW, Trainable};
use crate::ops::{Activation, AttentionShape, DropoutSite, HstuShape, LayerNorm, Linear, Ops, Rows};
use crate::sequence::{SequenceBatch, time_bucket_bounds};
use crate::tensor::Tensor;
use crate::threads;
use activation::Activate;
use attention::{HstuAttention, SoftmaxAttention};
use gemm::add_product;
use gru::Gru;
use shared::Memory;
pub use shared::Shared;

/// The operations of the CPU backend. They run at once.
#[derive(Clone, Debug, Default)]
pub struct CpuOps {
    memory: Memory,
}

impl CpuOps {
    /// Operations whose results lie where earlier ones lay that have been dropped, as suits work that is repeated.
    pub fn pooled() -> CpuOps {
        CpuOps { memory: Memory::pooled() }
    }
}

/// Most rows that a thread multiplies at a time, so that they are still in the cache when the activation follows.
const MAX_ROWS: usize = 256;

/// Fewest rows that a thread works on at a time: small batches are split, too.
const MIN_ROWS: usize = 8;

impl Ops for CpuOps {
    type Floats = Shared;
    type Ints = Arc<Vec<u32>>;

    fn floats(&mut self, tensor: &Tensor) -> Shared {
        Shared::from(tensor.clone().into_shared())
    }

    fn ints(&mut self, values: &[u32]) -> Arc<Vec<u32>> {
        Arc::new(values.to_vec())
    }

    fn read(&mut self, array: &Shared) -> Result<Vec<f32>> {
        Ok(array.to_vec())
    }

    fn gather(&mut self, table: &Shared, width: usize, indices: &Arc<Vec<u32>>, rows: usize) -> Shared {
        let mut y = self.memory.unspecified(rows * width);
        threads::for_each_row(y.make_mut(), width, MAX_ROWS, |row, y| {
            y.copy_from_slice(&table[indices[row] as usize * width..][..width]);
        });
        y
    }

    fn embed(
        &mut self,
        items: &Shared,
        positions: &Shared,
        width: usize,
        scale: f32,
        ids: &Arc<Vec<u32>>,
        rows: &Rows<Arc<Vec<u32>>>,
    ) -> Shared {
        let mut y = self.memory.unspecified(rows.n_rows * width);
        threads::for_each_row(y.make_mut(), width, MAX_ROWS, |row, y| {
            let item = &items[ids[row] as usize * width..][..width];
            let position = &positions[(row - rows.start[row] as usize) * width..][..width];
            y.iter_mut().zip(item.iter().zip(position)).for_each(|(y, (item, position))| *y = item * scale + position);
        });
        y
    }

    fn linear(
        &mut self,
        x: &Shared,
        rows: usize,
        layer: &Linear<Shared>,
        activation: Activation,
        residual: Option<&Shared>,
    ) -> Shared {
        self.linear_to(x, rows, layer, activation, residual, None)
    }

    fn layer_norm(&mut self, x: &Shared, rows: usize, width: usize, eps: f32) -> Shared {
        self.map_rows(x, rows, width, |row, out| layer_norm_row(row, eps, out))
    }

    fn affine_layer_norm(&mut self, x: &Shared, rows: usize, norm: &LayerNorm<Shared>) -> Shared {
        self.map_rows(x, rows, norm.width, |row, out| {
            let (mean, variance) = mean_and_variance(row);
            let deviation = match norm.unbiased {
                true => (variance * (norm.width as f32 / (norm.width - 1) as f32)).sqrt() + norm.eps,
                false => (variance + norm.eps).sqrt(),
            };
            let scale = 1.0 / deviation;
            for (((out, x), weight), bias) in out.iter_mut().zip(row).zip(&*norm.weight).zip(&*norm.bias) {
                *out = (x - mean) * scale * weight + bias;
            }
        })
    }

    fn l2_norm(&mut self, x: &Shared, rows: usize, width: usize, eps: f32) -> Shared {
        self.map_rows(x, rows, width, |row, out| {
            let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt().max(eps);
            out.iter_mut().zip(row).for_each(|(out, x)| *out = x / norm);
        })
    }

    fn glu(&mut self, x: &Shared, rows: usize, hidden: usize, activation: Activation) -> Shared {
        let mut y = self.memory.unspecified(rows * hidden);
        threads::for_each_row(y.make_mut(), hidden, MAX_ROWS, |row, y| {
            let (activated, gate) = x[row * 2 * hidden..][..2 * hidden].split_at(hidden);
            y.copy_from_slice(activated);
            simd::run(Activate { values: y, activation });
            y.iter_mut().zip(gate).for_each(|(y, gate)| *y *= gate);
        });
        y
    }

    fn concat(&mut self, parts: &[(&Shared, usize)], rows: usize) -> Shared {
        let total: usize = parts.iter().map(|(_, width)| width).sum();
        let mut y = self.memory.unspecified(rows * total);
        threads::for_each_row(y.make_mut(), total, MAX_ROWS, |row, mut y| {
            for (part, width) in parts {
                let (this, rest) = y.split_at_mut(*width);
                this.copy_from_slice(&part[row * width..][..*width]);
                y = rest;
            }
        });
        y
    }

    fn time_buckets(&mut self, batch: &SequenceBatch, rows: &Rows<Arc<Vec<u32>>>) -> Arc<Vec<u32>> {
        let bounds = time_bucket_bounds();
        let mut buckets = vec![0; rows.n_rows * rows.max_length];
        threads::for_each_row(&mut buckets, rows.max_length, 1, |row, buckets| {
            let start = rows.start[row] as usize;
            for (bucket, &time) in buckets.iter_mut().zip(&batch.timestamps[start..=row]) {
                let difference = batch.next_timestamps[row].abs_diff(time);
                *bucket = bounds.partition_point(|&bound| bound <= difference) as u32;
            }
        });
        Arc::new(buckets)
    }

    fn hstu_attention(
        &mut self,
        uvqk: &Shared,
        shape: HstuShape,
        rows: &Rows<Arc<Vec<u32>>>,
        buckets: &Arc<Vec<u32>>,
        pos_w: &Shared,
        ts_w: &Shared,
    ) -> Shared {
        let (start, max_length) = (&rows.start, rows.max_length);
        let mut y = self.memory.zeros(rows.n_rows * shape.attended());
        HstuAttention { uvqk, shape, start, max_length, buckets, pos_w, ts_w }.run(y.make_mut());
        y
    }

    fn hstu_gate(
        &mut self,
        uvqk: &Shared,
        attended: &Shared,
        shape: HstuShape,
        n_rows: usize,
        eps: f32,
        concat_ua: bool,
    ) -> Shared {
        let width = shape.attended();
        let out_width = if concat_ua { 3 * width } else { width };
        let mut y = self.memory.unspecified(n_rows * out_width);
        threads::for_each_row(y.make_mut(), out_width, 1, |row, out| {
            let u = &uvqk[row * shape.uvqk()..][..width];
            let attended = &attended[row * width..][..width];
            let product = if concat_ua {
                out[..width].copy_from_slice(u);
                layer_norm_row(attended, eps, &mut out[width..2 * width]);
                let (ua, product) = out.split_at_mut(2 * width);
                product.copy_from_slice(&ua[width..]);
                product
            } else {
                layer_norm_row(attended, eps, out);
                out
            };
            product.iter_mut().zip(u).for_each(|(a, u)| *a *= u);
        });
        y
    }

    fn softmax_attention(
        &mut self,
        q: &Shared,
        kv: &Shared,
        shape: AttentionShape,
        rows: &Rows<Arc<Vec<u32>>>,
        _: DropoutSite,
    ) -> Shared {
        let mut y = self.memory.zeros(rows.n_rows * shape.width);
        SoftmaxAttention { q, kv, shape, start: &rows.start, dropout: None }.run(y.make_mut());
        y
    }

    fn gru(&mut self, x: &Shared, recurrent: &Linear<Shared>, offsets: &[u32]) -> Shared {
        let mut y = self.memory.unspecified(x.len() / 3);
        Gru { x, recurrent, offsets }.run(y.make_mut());
        y
    }
}

impl CpuOps {
    /// Where its arrays come from.
    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// See [`TrainingOps::update`](crate::backend::TrainingOps::update).
    pub(super) fn adamw(&self, adamw: &AdamW, parameter: Trainable<Shared>, gradient: Option<&Shared>) {
        adamw::update(adamw, parts(parameter), gradient.map(|gradient| &gradient[..]));
    }

    /// See [`TrainingOps::update_rows`](crate::backend::TrainingOps::update_rows).
    pub(super) fn adamw_rows(
        &self,
        adamw: &AdamW,
        table: Trainable<Shared>,
        width: usize,
        rows: &[u32],
        gradient: &[f32],
        lazy: bool,
    ) {
        adamw::update_rows(adamw, parts(table), width, rows, gradient, lazy);
    }

    /// [`Ops::linear`], which also writes what the activation is applied to into `before`, if that is asked for.
    fn linear_to(
        &self,
        x: &[f32],
        rows: usize,
        layer: &Linear<Shared>,
        activation: Activation,
        residual: Option<&Shared>,
        mut before: Option<&mut [f32]>,
    ) -> Shared {
        let (n_in, n_out) = (layer.n_in, layer.n_out);
        let mut y = self.memory.unspecified(rows * n_out);
        let chunk_rows = rows.div_ceil(threads::count()).next_multiple_of(MIN_ROWS).min(MAX_ROWS);
        let chunk_len = (chunk_rows * n_out).max(1);
        let mut before = before.as_mut().map(|before| before.chunks_mut(chunk_len));
        let chunks = y.make_mut().chunks_mut(chunk_len).enumerate();
        let chunks = chunks.map(|(chunk, y)| (chunk, y, before.as_mut().and_then(Iterator::next)));
        threads::for_each(chunks, |(chunk, y, before)| {
            let first = chunk * chunk_rows;
            match &layer.bias {
                Some(bias) => y.chunks_exact_mut(n_out).for_each(|y| y.copy_from_slice(bias)),
                None => y.fill(0.0),
            }
            add_product(&x[first * n_in..], &layer.weight, (n_in, n_out), y);
            if let Some(before) = before {
                before.copy_from_slice(y);
            }
            simd::run(Activate { values: y, activation });
            if let Some(residual) = residual {
                y.iter_mut().zip(&residual[first * n_out..]).for_each(|(y, residual)| *y += residual);
            }
        });
        y
    }

    /// (rows, width): `f(row of x, row of the result)` for every row, in parallel.
    fn map_rows(&self, x: &[f32], rows: usize, width: usize, f: impl Fn(&[f32], &mut [f32]) + Sync) -> Shared {
        let mut y = self.memory.unspecified(rows * width);
        threads::for_each_row(y.make_mut(), width, MAX_ROWS, |row, y| f(&x[row * width..][..width], y));
        y
    }
}

fn parts(parameter: Trainable<'_, Shared>) -> [&mut [f32]; 3] {
    let Trainable { values, first_moment, second_moment } = parameter;
    [values, first_moment, second_moment].map(Shared::make_mut)
}

fn mean_and_variance(row: &[f32]) -> (f32, f32) {
    let inverse = 1.0 / row.len() as f32;
    let mean = row.iter().sum::<f32>() * inverse;
    (mean, row.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() * inverse)
}

fn layer_norm_row(row: &[f32], eps: f32, out: &mut [f32]) {
    let (mean, variance) = mean_and_variance(row);
    let scale = 1.0 / (variance + eps).sqrt();
    out.iter_mut().zip(row).for_each(|(out, x)| *out = (x - mean) * scale);
}
