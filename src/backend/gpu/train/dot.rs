//! The sampled softmax of inner products, as dispatches.

use super::kernels::*;
use super::ops::{GpuTrainingOps, len};
use super::pairs::{PairLists, PairSums, Softmax};
use crate::Result;
use crate::backend::gpu::device::Buffer;
use crate::backend::loss::SampledSoftmax;

/// See [`TrainingOps::dot_loss`](crate::backend::TrainingOps::dot_loss).
pub fn dot_loss(
    ops: &mut GpuTrainingOps,
    dim: usize,
    [queries, items]: [&Buffer; 2],
    softmax: SampledSoftmax,
) -> Result<(f64, [Buffer; 2])> {
    let [of_queries, of_items] = [queries, items].map(|array| ops.cleared(len(array)));
    if softmax.positives.is_empty() {
        return Ok((0.0, [of_queries, of_items]));
    }
    let all = Softmax::new(ops, softmax);
    let (n, slots) = (all.positions, all.slots);
    let params = PairProductsParams { n: (n * slots) as u32, dim: dim as u32, per_position: slots as u32 };
    let buffers = [queries, items, &all.indices, &all.similarities];
    ops.element_wise(&PAIR_PRODUCTS, &params, &buffers, n * slots);
    all.dispatch(ops, 0, n);
    let sums = |x| PairSums { derivatives: &all.dy, plane: 1, width: dim, inner: dim, x: Some((x, 0)) };
    let lists = PairLists::of_positions(ops, &all.items, slots);
    sums(items).add_to(ops, &lists, (&of_queries, 0));
    let lists = PairLists::of_items(ops, &all.items, slots, len(items) / dim);
    sums(queries).add_to(ops, &lists, (&of_items, 0));
    let (loss, _) = all.read(ops, &[])?;
    Ok((loss, [of_queries, of_items]))
}
