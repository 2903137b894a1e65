//! [`Ops`] on host slices.

mod attention;
mod gemm;

use std::sync::Arc;

use pulp::{Arch, Simd, WithSimd};

use crate::Result;
use crate::backend::cpu::simd::math::{Relu, Silu, map_in_place};
use crate::ops::{Activation, HstuShape, Linear, Ops, Rows};
use crate::sequence::{SequenceBatch, time_bucket_bounds};
use crate::tensor::Tensor;
use crate::threads;
use attention::{CausalAttention, HstuAttention};
use gemm::add_product;

/// A device array of the CPU backend: shared host memory.
pub(crate) type Shared = Arc<Vec<f32>>;

/// The operations of the CPU backend. They run at once; there is no state.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuOps;

/// Most rows that a thread multiplies at a time, so that they are still in the cache when the activation follows.
const MAX_ROWS: usize = 256;

/// Fewest rows that a thread works on at a time: small batches are split, too.
const MIN_ROWS: usize = 8;

impl Ops for CpuOps {
    type Floats = Shared;
    type Ints = Arc<Vec<u32>>;

    fn floats(&mut self, tensor: &Tensor) -> Shared {
        tensor.clone().into_shared()
    }

    fn ints(&mut self, values: &[u32]) -> Arc<Vec<u32>> {
        Arc::new(values.to_vec())
    }

    fn read(&mut self, array: &Shared) -> Result<Vec<f32>> {
        Ok(array.to_vec())
    }

    fn gather(&mut self, table: &Shared, width: usize, indices: &Arc<Vec<u32>>, rows: usize) -> Shared {
        let mut out = Vec::with_capacity(rows * width);
        for &index in &indices[..rows] {
            out.extend_from_slice(&table[index as usize * width..][..width]);
        }
        Arc::new(out)
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
        let mut out = Vec::with_capacity(rows.n_rows * width);
        for (row, (&id, &start)) in ids.iter().zip(rows.start.iter()).enumerate() {
            let item = &items[id as usize * width..][..width];
            let position = &positions[(row - start as usize) * width..][..width];
            out.extend(item.iter().zip(position).map(|(item, position)| item * scale + position));
        }
        Arc::new(out)
    }

    fn linear(
        &mut self,
        x: &Shared,
        rows: usize,
        layer: &Linear<Shared>,
        activation: Activation,
        residual: Option<&Shared>,
    ) -> Shared {
        let (n_in, n_out) = (layer.n_in, layer.n_out);
        let mut out = vec![0.0; rows * n_out];
        let chunk_rows = rows.div_ceil(threads::count()).next_multiple_of(MIN_ROWS).min(MAX_ROWS);
        threads::for_each(out.chunks_mut((chunk_rows * n_out).max(1)).enumerate(), |(chunk, out)| {
            let first = chunk * chunk_rows;
            if let Some(bias) = &layer.bias {
                out.chunks_exact_mut(n_out).for_each(|out| out.copy_from_slice(bias));
            }
            add_product(&x[first * n_in..], &layer.weight, (n_in, n_out), out);
            Arch::new().dispatch(Activate { values: out, activation });
            if let Some(residual) = residual {
                out.iter_mut().zip(&residual[first * n_out..]).for_each(|(out, residual)| *out += residual);
            }
        });
        Arc::new(out)
    }

    fn layer_norm(&mut self, x: &Shared, rows: usize, width: usize, eps: f32) -> Shared {
        map_rows(x, rows, width, |row, out| layer_norm_row(row, eps, out))
    }

    fn l2_norm(&mut self, x: &Shared, rows: usize, width: usize, eps: f32) -> Shared {
        map_rows(x, rows, width, |row, out| {
            let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt().max(eps);
            out.iter_mut().zip(row).for_each(|(out, x)| *out = x / norm);
        })
    }

    fn glu(&mut self, x: &Shared, rows: usize, hidden: usize, activation: Activation) -> Shared {
        let mut out = vec![0.0; rows * hidden];
        let rows_of_x = x.chunks_exact((2 * hidden).max(1));
        for (out, x) in out.chunks_exact_mut(hidden.max(1)).zip(rows_of_x) {
            out.copy_from_slice(&x[..hidden]);
        }
        Arch::new().dispatch(Activate { values: &mut out, activation });
        for (out, x) in out.chunks_exact_mut(hidden.max(1)).zip(x.chunks_exact((2 * hidden).max(1))) {
            out.iter_mut().zip(&x[hidden..]).for_each(|(out, gate)| *out *= gate);
        }
        Arc::new(out)
    }

    fn concat(&mut self, parts: &[(&Shared, usize)], rows: usize) -> Shared {
        let width: usize = parts.iter().map(|(_, width)| width).sum();
        let mut out = Vec::with_capacity(rows * width);
        for row in 0..rows {
            for (part, width) in parts {
                out.extend_from_slice(&part[row * width..][..*width]);
            }
        }
        Arc::new(out)
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
        Arc::new(HstuAttention { uvqk, shape, start, max_length, buckets, pos_w, ts_w }.run())
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
        let mut out = vec![0.0; n_rows * out_width];
        threads::for_each_row(&mut out, out_width, 1, |row, out| {
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
        Arc::new(out)
    }

    fn causal_attention(
        &mut self,
        q: &Shared,
        kv: &Shared,
        width: usize,
        heads: usize,
        rows: &Rows<Arc<Vec<u32>>>,
    ) -> Shared {
        Arc::new(CausalAttention { q, kv, width, heads, start: &rows.start }.run())
    }
}

/// (rows, width): `f(row of x, row of the result)` for every row, in parallel.
fn map_rows(x: &[f32], rows: usize, width: usize, f: impl Fn(&[f32], &mut [f32]) + Sync) -> Shared {
    let mut out = vec![0.0; rows * width];
    threads::for_each_row(&mut out, width, MAX_ROWS, |row, out| f(&x[row * width..][..width], out));
    Arc::new(out)
}

fn layer_norm_row(row: &[f32], eps: f32, out: &mut [f32]) {
    let inverse = 1.0 / row.len() as f32;
    let mean = row.iter().sum::<f32>() * inverse;
    let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() * inverse;
    let scale = 1.0 / (variance + eps).sqrt();
    out.iter_mut().zip(row).for_each(|(out, x)| *out = (x - mean) * scale);
}

/// Applies an activation to every value.
struct Activate<'a> {
    values: &'a mut [f32],
    activation: Activation,
}

impl WithSimd for Activate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.activation {
            Activation::Identity => {}
            Activation::Silu => map_in_place(simd, Silu, self.values),
            Activation::Relu => map_in_place(simd, Relu, self.values),
            Activation::Gelu => self.values.iter_mut().for_each(|x| *x = gelu(*x)),
        }
    }
}

/// x * Phi(x) with the exact Gaussian distribution function.
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2))
}
