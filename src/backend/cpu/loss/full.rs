//! Softmax over all items. The logits of a block of positions and a block of items are made twice: for the maximum and the sum of each
//! position, which grow block by block along with the gradient of its query, and again for the gradients of items.

use pulp::{Simd, WithSimd};

use crate::backend::cpu::ops::gemm::{Matrix, multiply};
use crate::backend::cpu::simd::math::{Exp, map_in_place};
use crate::backend::cpu::simd::run;
use crate::backend::loss::{DotGradients, FullDotLoss};
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
pub fn full_softmax(loss: &FullDotLoss, gradients: &mut DotGradients) -> f64 {
    let (n, dim) = (loss.softmax.targets.len(), loss.dim);
    gradients.queries.fill(0.0);
    gradients.items.fill(0.0);
    if n == 0 {
        return 0.0;
    }
    let (mut softmaxes, mut losses) = (vec![Softmax::default(); n], vec![0.0; n]);
    let results = softmaxes.chunks_mut(POSITIONS).zip(losses.chunks_mut(POSITIONS));
    let blocks = gradients.queries.chunks_mut(POSITIONS * dim).zip(results).enumerate();
    threads::for_each_with(blocks, |logits: &mut Vec<f32>, (block, (gradient, (softmaxes, losses)))| {
        loss.forward(block * POSITIONS, logits, softmaxes, losses, gradient);
    });
    let blocks = gradients.items.chunks_mut(ITEMS * dim).enumerate();
    threads::for_each_with(blocks, |logits: &mut Vec<f32>, (block, gradient)| {
        loss.back(block * ITEMS, logits, &softmaxes, gradient);
    });
    losses.iter().sum::<f64>() / n as f64
}

impl FullDotLoss<'_> {
    /// What a logit's derivative is multiplied with.
    fn scale(&self) -> f64 {
        1.0 / (self.softmax.targets.len() as f64 * f64::from(self.softmax.temperature))
    }

    /// (positions, items): the logits of a block.
    fn logits(&self, (first, n): (usize, usize), (first_item, n_items): (usize, usize), logits: &mut Vec<f32>) {
        logits.resize(n * n_items, 0.0);
        let queries = Matrix::rows(&self.queries[first * self.dim..], self.dim);
        let items = Matrix::rows(&self.items[first_item * self.dim..], self.dim).transposed();
        multiply((n, self.dim, n_items), 1.0 / self.softmax.temperature, queries, items, 0.0, logits, n_items);
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
        let targets = &self.softmax.targets[first..first + n];
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
        let scale = self.scale();
        let results = losses.iter_mut().zip(softmaxes).zip(targets).zip(gradient.chunks_exact_mut(dim));
        for (((loss, softmax), &target), gradient) in results {
            *loss += f64::from(softmax.greatest) + softmax.total.ln();
            for (sum, &item) in gradient.iter_mut().zip(&self.items[target as usize * dim..][..dim]) {
                *sum = ((f64::from(*sum) / softmax.total - f64::from(item)) * scale) as f32;
            }
        }
    }

    /// A block of items with all positions: the gradients of the items.
    fn back(&self, first_item: usize, logits: &mut Vec<f32>, softmaxes: &[Softmax], gradient: &mut [f32]) {
        let dim = self.dim;
        let n_items = gradient.len() / dim;
        let scale = self.scale() as f32;
        for (block, softmaxes) in softmaxes.chunks(POSITIONS).enumerate() {
            let (first, n) = (block * POSITIONS, softmaxes.len());
            self.logits((first, n), (first_item, n_items), logits);
            run(Shares { logits, n_items, softmaxes });
            for (row, &target) in logits.chunks_exact_mut(n_items).zip(&self.softmax.targets[first..]) {
                if let Some(share) = (target as usize).checked_sub(first_item).and_then(|item| row.get_mut(item)) {
                    *share -= 1.0;
                }
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
