//! The mutual information loss of the gates of positives, as dispatches (arXiv 2407.15462, section 2.3).

use super::kernels::*;
use super::ops::{GpuTrainingOps, len};
use crate::backend::gpu::device::Buffer;

/// Pairs whose part of the loss is one sum.
const CHUNK: usize = 32;

/// Added to every number whose logarithm is taken.
const EPS: f64 = 1e-6;

/// Its sums over the pairs of all rounds.
pub struct MutualInformation {
    /// (any, 2, L): sums of probabilities and of p log(p + eps) of some pairs each.
    parts: Vec<Buffer>,
    /// (2, L): over all pairs.
    sums: Buffer,
}

impl MutualInformation {
    /// Of no pairs.
    pub fn new(ops: &mut GpuTrainingOps, n_logits: usize) -> MutualInformation {
        MutualInformation { parts: Vec::new(), sums: ops.cleared(2 * n_logits) }
    }

    /// Adds `n_pairs` pairs, with their probabilities as mol_gate.wgsl has them.
    pub fn add(&mut self, ops: &mut GpuTrainingOps, probabilities: &Buffer, n_pairs: usize) {
        let (n_logits, chunks) = (len(&self.sums) / 2, n_pairs.div_ceil(CHUNK));
        let params = MutualInformationParams {
            n: (chunks * n_logits) as u32,
            pairs: n_pairs as u32,
            logits: n_logits as u32,
            chunk: CHUNK as u32,
        };
        let part = ops.result(chunks * 2 * n_logits);
        ops.element_wise(&MUTUAL_INFORMATION, &params, &[probabilities, &part], chunks * n_logits);
        let sums = ops.column_sums(&part, chunks, 2 * n_logits);
        ops.add_to(&mut self.sums, sums);
        self.parts.push(part);
    }

    /// What [`loss`] takes, on the device.
    pub fn parts(&self) -> &[Buffer] {
        &self.parts
    }

    /// (2, L): over all pairs.
    pub fn sums(&self) -> &Buffer {
        &self.sums
    }
}

/// The loss, from all [`MutualInformation::parts`].
pub fn loss(parts: &[f32], n_logits: usize, n_pairs: usize) -> f64 {
    let (mut means, mut of_pairs) = (vec![0.0; n_logits], 0.0);
    for part in parts.chunks_exact(2 * n_logits) {
        let (sums, products) = part.split_at(n_logits);
        means.iter_mut().zip(sums).for_each(|(mean, &sum)| *mean += f64::from(sum) / n_pairs as f64);
        of_pairs += products.iter().map(|&sum| f64::from(sum)).sum::<f64>();
    }
    means.iter().map(|mean| mean * (mean + EPS).ln()).sum::<f64>() - of_pairs / n_pairs as f64
}
