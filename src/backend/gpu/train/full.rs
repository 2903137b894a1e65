//! The softmax over all items, as dispatches: similarities of some positions with all items, their derivatives in the same place, and
//! products of matrices.

use super::kernels::*;
use super::ops::{GpuTrainingOps, len};
use super::product::{CHUNK, Matrix};
use crate::Result;
use crate::backend::gpu::device::{Buffer, grid_1d};
use crate::backend::loss::FullSoftmax;
use crate::ops::GradientOps;

/// Rounds have multiples of so many positions: parts that are bound begin at multiples of 256 bytes.
const ALIGNMENT: usize = 64;

/// See [`TrainingOps::full_softmax_loss`](crate::backend::TrainingOps::full_softmax_loss).
pub fn full_softmax_loss(
    ops: &mut GpuTrainingOps,
    dim: usize,
    [queries, items]: [&Buffer; 2],
    softmax: FullSoftmax,
) -> Result<(f64, [Buffer; 2])> {
    let (n, m) = (softmax.targets.len(), len(items) / dim);
    let most = (ops.round / m.max(1)).next_multiple_of(ALIGNMENT).max(ALIGNMENT);
    let (targets, losses) = (ops.recorder.upload(softmax.targets), ops.result(n));
    let of_queries = ops.result(n * dim);
    let mut of_items = None;
    for first in (0..n).step_by(most) {
        let here = most.min(n - first);
        let rows = 4 * (first * dim) as u64..4 * ((first + here) * dim) as u64;
        let round = queries.slice(rows.clone());
        let dy = ops.product((here, dim, m), Matrix(&round, dim, 1), Matrix(items, 1, dim), dim);
        let params = FullSoftmaxParams {
            positions: here as u32,
            first_position: first as u32,
            items: m as u32,
            temperature: softmax.temperature,
            scale: (1.0 / (n as f64 * f64::from(softmax.temperature))) as f32,
        };
        ops.recorder.dispatch(&FULL_SOFTMAX, &params, &[&targets, &dy, &losses], grid_1d(here as u64));
        let of_round = ops.product((here, m, dim), Matrix(&dy, m, 1), Matrix(items, dim, 1), CHUNK);
        ops.recorder.copy(&of_round, &of_queries.slice(rows));
        let part = ops.product((m, here, dim), Matrix(&dy, 1, m), Matrix(&round, dim, 1), CHUNK);
        ops.add(part, &mut of_items);
        ops.recorder.submit()?;
    }
    let losses: Vec<f32> = bytemuck::pod_collect_to_vec(&ops.recorder.read_bytes(&losses)?);
    let of_items = of_items.unwrap_or_else(|| ops.cleared(len(items)));
    let sum: f64 = losses.iter().map(|&loss| f64::from(loss)).sum();
    Ok((sum / n.max(1) as f64, [of_queries, of_items]))
}
