//! Softmax over all items. The logits of a block of positions and a block of items are made twice: for the maximum and the sum of each
//! position, which grow block by block along with the gradient of its query, and again for the gradients of items.

use pulp::{Simd, WithSimd};

use crate::backend::cpu::ops::gemm::{Matrix, multiply};
use crate::backend::cpu::simd::math::{Exp, map_in_place};
use crate::backend::cpu::simd::run;
use crate::backend::loss::{DotGradients, FullSoftmax};
use crate::threads;

/// Positions and items of a block, whose logits stay in the second-level cache.
const POSITIONS: usize = 64;
const ITEMS: usize = 256;

/// The softmax of a position: its greatest logit, and the sum of e^(logit - greatest).
#[derive(Clone, Copy, Default)]
struct Softmax {
    greatest: f32,
    total: f64,
}

/// The mean loss of a batch, and its gradients.
pub fn full_softmax(loss: &FullSoftmax, gradients: &mut DotGradients) -> f64 {
    let (n, dim) = (loss.targets.len(), loss.dim);
    gradients.queries.fill(0.0);
    gradients.items.fill(0.0);
    let mut no_bias = vec![0.0; if loss.bias.is_none() { loss.items.len() / dim } else { 0 }];
    let of_bias = gradients.bias.as_deref_mut().unwrap_or(&mut no_bias);
    of_bias.fill(0.0);
    if n == 0 {
        return 0.0;
    }
    let (mut softmaxes, mut losses) = (vec![Softmax::default(); n], vec![0.0; n]);
    let results = softmaxes.chunks_mut(POSITIONS).zip(losses.chunks_mut(POSITIONS));
    let blocks = gradients.queries.chunks_mut(POSITIONS * dim).zip(results).enumerate();
    threads::for_each_with(blocks, |logits: &mut Vec<f32>, (block, (gradient, (softmaxes, losses)))| {
        loss.forward(block * POSITIONS, logits, softmaxes, losses, gradient);
    });
    let blocks = gradients.items.chunks_mut(ITEMS * dim).zip(of_bias.chunks_mut(ITEMS)).enumerate();
    threads::for_each_with(blocks, |logits: &mut Vec<f32>, (block, (gradient, of_bias))| {
        loss.back(block * ITEMS, logits, &softmaxes, gradient, of_bias);
    });
    losses.iter().sum::<f64>() / n as f64
}

impl FullSoftmax<'_> {
    /// (positions, items): the logits of a block.
    fn logits(&self, (first, n): (usize, usize), (first_item, n_items): (usize, usize), logits: &mut Vec<f32>) {
        logits.resize(n * n_items, 0.0);
        if let Some(bias) = self.bias {
            logits.chunks_exact_mut(n_items).for_each(|row| row.copy_from_slice(&bias[first_item..][..n_items]));
        }
        let queries = Matrix::rows(&self.queries[first * self.dim..], self.dim);
        let items = Matrix::rows(&self.items[first_item * self.dim..], self.dim).transposed();
        let keep = if self.bias.is_some() { 1.0 } else { 0.0 };
        multiply((n, self.dim, n_items), 1.0, queries, items, keep, logits, n_items);
    }

    /// A block of positions with all items: their softmaxes, losses and the gradients of their queries.
    fn forward(
        &self,
        first: usize,
        logits: &mut Vec<f32>,
        softmaxes: &mut [Softmax],
        losses: &mut [f64],
        gradient: &mut [f32],
    ) {
        let (n, dim) = (softmaxes.len(), self.dim);
        let targets = &self.targets[first..first + n];
        softmaxes.fill(Softmax { greatest: f32::NEG_INFINITY, total: 0.0 });
        for (block, items) in self.items.chunks(ITEMS * dim).enumerate() {
            let (first_item, n_items) = (block * ITEMS, items.len() / dim);
            self.logits((first, n), (first_item, n_items), logits);
            for ((loss, &target), row) in losses.iter_mut().zip(targets).zip(logits.chunks_exact(n_items)) {
                if let Some(&logit) = (target as usize).checked_sub(first_item).and_then(|item| row.get(item)) {
                    *loss = -f64::from(logit);
                }
            }
            run(AddBlock { logits, n_items, softmaxes, gradient, dim });
            multiply(
                (n, n_items, dim),
                1.0,
                Matrix::rows(logits, n_items),
                Matrix::rows(items, dim),
                1.0,
                gradient,
                dim,
            );
        }
        let scale = 1.0 / self.targets.len() as f64;
        let results = losses.iter_mut().zip(softmaxes).zip(targets).zip(gradient.chunks_exact_mut(dim));
        for (((loss, softmax), &target), gradient) in results {
            *loss += f64::from(softmax.greatest) + softmax.total.ln();
            for (sum, &item) in gradient.iter_mut().zip(&self.items[target as usize * dim..][..dim]) {
                *sum = ((f64::from(*sum) / softmax.total - f64::from(item)) * scale) as f32;
            }
        }
    }

    /// A block of items with all positions: the gradients of the items and of their biases.
    fn back(
        &self,
        first_item: usize,
        logits: &mut Vec<f32>,
        softmaxes: &[Softmax],
        gradient: &mut [f32],
        of_bias: &mut [f32],
    ) {
        let (n_items, dim) = (of_bias.len(), self.dim);
        let scale = 1.0 / self.targets.len() as f32;
        for (block, softmaxes) in softmaxes.chunks(POSITIONS).enumerate() {
            let (first, n) = (block * POSITIONS, softmaxes.len());
            self.logits((first, n), (first_item, n_items), logits);
            run(Shares { logits, n_items, softmaxes });
            for (row, &target) in logits.chunks_exact_mut(n_items).zip(&self.targets[first..]) {
                if let Some(share) = (target as usize).checked_sub(first_item).and_then(|item| row.get_mut(item)) {
                    *share -= 1.0;
                }
                of_bias.iter_mut().zip(row).for_each(|(sum, share)| *sum += *share * scale);
            }
            let shares = Matrix::rows(logits, n_items).transposed();
            let queries = Matrix::rows(&self.queries[first * dim..], dim);
            multiply((n_items, n, dim), scale, shares, queries, 1.0, gradient, dim);
        }
    }
}

/// Replaces the logits of a block by e^(logit - greatest), with the greatest logit of each position so far, and scales what was summed
/// before to that.
struct AddBlock<'a> {
    logits: &'a mut [f32],
    n_items: usize,
    softmaxes: &'a mut [Softmax],
    gradient: &'a mut [f32],
    dim: usize,
}

impl WithSimd for AddBlock<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let AddBlock { logits, n_items, softmaxes, gradient, dim } = self;
        let rows = logits.chunks_exact_mut(n_items).zip(gradient.chunks_exact_mut(dim));
        for (softmax, (row, gradient)) in softmaxes.iter_mut().zip(rows) {
            // The exponential is clamped, which would hide a NaN or an infinity: times 0 they are NaN.
            let (mut greatest, mut none) = (softmax.greatest, 0.0);
            for &logit in row.iter() {
                greatest = f32::max(greatest, logit);
                none += 0.0 * logit;
            }
            exponentials(simd, row, greatest);
            let kept = (softmax.greatest - greatest).exp();
            if kept != 1.0 {
                gradient.iter_mut().for_each(|sum| *sum *= kept);
            }
            softmax.total = softmax.total * f64::from(kept) + f64::from(sum(simd, row) + none);
            softmax.greatest = greatest;
        }
    }
}

/// Replaces logits by their shares of the softmax.
struct Shares<'a> {
    logits: &'a mut [f32],
    n_items: usize,
    softmaxes: &'a [Softmax],
}

impl WithSimd for Shares<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for (row, softmax) in self.logits.chunks_exact_mut(self.n_items).zip(self.softmaxes) {
            exponentials(simd, row, softmax.greatest);
            let inverse = (1.0 / softmax.total) as f32;
            row.iter_mut().for_each(|value| *value *= inverse);
        }
    }
}

/// e^(x - greatest)
#[inline(always)]
fn exponentials<S: Simd>(simd: S, row: &mut [f32], greatest: f32) {
    row.iter_mut().for_each(|value| *value -= greatest);
    map_in_place(simd, Exp, row);
}

#[inline(always)]
fn sum<S: Simd>(simd: S, values: &[f32]) -> f32 {
    let (values, rest) = S::as_simd_f32s(values);
    let mut sum = simd.splat_f32s(0.0);
    for &value in values {
        sum = simd.add_f32s(sum, value);
    }
    simd.reduce_sum_f32s(sum) + rest.iter().sum::<f32>()
}
