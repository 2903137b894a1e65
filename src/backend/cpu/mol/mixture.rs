//! From the logits of a tile to its scores: gate, softmax and mixture.
//!
//! Twin of `shaders/scan/lib/mol.wgsl`, `mol_scan.wgsl` and `mol_rescore.wgsl`.

use pulp::{Simd, WithSimd};

use super::kernel::MolKernel;
use super::scratch::MolScratch;
use crate::backend::cpu::dot::micro_kernel::{Sink, TILE, store};
use crate::backend::cpu::simd::math::{INTERLEAVED, Silu, exp, map_in_place, sigmoid};
use crate::config::GatingCombination;

/// Scores a tile whose logits are in `work`.
pub struct MixtureStage<'a> {
    pub kernel: &'a MolKernel,
    pub query_gate: Option<&'a [f32]>,
    pub item_gate: Option<&'a [f32]>,
    pub work: &'a mut MolScratch,
    pub scores: &'a mut [f32; TILE],
}

impl WithSimd for MixtureStage<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let MixtureStage { kernel, query_gate, item_gate, work, scores } = self;
        let MolScratch { cross, gates } = work;
        if let Some((layer, bias)) = &kernel.hidden {
            let (hidden, logits) = cross.split_at_mut(kernel.n_hidden * TILE);
            layer.multiply(simd, logits, &mut Biased { sums: hidden, bias });
            // After all sums, and not as each is done: exponentials of many registers overlap.
            map_in_place(simd, Silu, hidden);
        }
        kernel.output.multiply(simd, cross, &mut Biased { sums: gates, bias: &kernel.output_bias });
        join_gates(simd, kernel.config.gating_combination, query_gate, item_gate, gates);
        if kernel.config.gating_combination == GatingCombination::GluSilu {
            map_in_place(simd, Silu, gates);
        }
        for register in 0..TILE / S::F32_LANES {
            if kernel.config.gating_combination == GatingCombination::GluSiluLn {
                normalised_silu(simd, gates, register);
            }
            let score = mix(simd, gates, &cross[kernel.n_hidden * TILE..], register);
            S::as_mut_simd_f32s(scores).0[register] = score;
        }
    }
}

/// Stores sums plus the bias of each row.
pub struct Biased<'a> {
    /// (rows, TILE)
    pub sums: &'a mut [f32],
    /// (rows)
    pub bias: &'a [f32],
}

impl<S: Simd> Sink<S> for Biased<'_> {
    #[inline(always)]
    fn take(&mut self, simd: S, row: usize, first: usize, [a, b]: [S::f32s; 2]) {
        let bias = simd.splat_f32s(self.bias[row]);
        store::<S>(self.sums, row, first, [simd.add_f32s(a, bias), simd.add_f32s(b, bias)]);
    }
}

/// Adds the one-sided parts of the gate to the cross part, which is in `gates` (L, TILE), before the activation:
/// `gate = query * item + cross`, or for `none` the sum of the three.
#[inline(always)]
pub(super) fn join_gates<S: Simd>(
    simd: S,
    combination: GatingCombination,
    query_gate: Option<&[f32]>,
    item_gate: Option<&[f32]>,
    gates: &mut [f32],
) {
    if query_gate.is_none() && item_gate.is_none() {
        return;
    }
    // A missing part: neutral in a sum, or in a product.
    let neutral = simd.splat_f32s(if combination == GatingCombination::None { 0.0 } else { 1.0 });
    let (gates, _) = S::as_mut_simd_f32s(gates);
    let (item_gate, _) = S::as_simd_f32s(item_gate.unwrap_or_default());
    let registers = TILE / S::F32_LANES;
    for (l, gates) in gates.chunks_exact_mut(registers).enumerate() {
        let query = query_gate.map_or(neutral, |gate| simd.splat_f32s(gate[l]));
        for (register, cross) in gates.iter_mut().enumerate() {
            let item = item_gate.get(l * registers + register).copied().unwrap_or(neutral);
            *cross = match combination {
                GatingCombination::None => simd.add_f32s(simd.add_f32s(query, item), *cross),
                GatingCombination::GluSilu | GatingCombination::GluSiluLn => simd.mul_add_e_f32s(query, item, *cross),
            };
        }
    }
}

/// The mean and the standard deviation, `sqrt(variance + 1e-5)`, of the gates (L, TILE) of each item, in one register of lanes.
#[inline(always)]
pub fn gate_norm<S: Simd>(simd: S, gates: &[f32], register: usize) -> (S::f32s, S::f32s) {
    let (gates, _) = S::as_simd_f32s(gates);
    let registers = TILE / S::F32_LANES;
    let inverse = simd.splat_f32s(1.0 / (gates.len() / registers) as f32);
    let mut mean = simd.splat_f32s(0.0);
    for row in gates.chunks_exact(registers) {
        mean = simd.add_f32s(mean, row[register]);
    }
    mean = simd.mul_f32s(mean, inverse);
    let mut variance = simd.splat_f32s(0.0);
    for row in gates.chunks_exact(registers) {
        let centred = simd.sub_f32s(row[register], mean);
        variance = simd.mul_add_e_f32s(centred, centred, variance);
    }
    (mean, simd.sqrt_f32s(simd.mul_add_e_f32s(variance, inverse, simd.splat_f32s(1e-5))))
}

/// `glu_silu_ln`: g * sigmoid((g - mean) / deviation), in one register of lanes.
#[inline(always)]
fn normalised_silu<S: Simd>(simd: S, gates: &mut [f32], register: usize) {
    let (mean, deviation) = gate_norm(simd, gates, register);
    let (gates, _) = S::as_mut_simd_f32s(gates);
    for row in gates.chunks_exact_mut(TILE / S::F32_LANES) {
        let normed = simd.div_f32s(simd.sub_f32s(row[register], mean), deviation);
        let [share] = sigmoid(simd, [normed]);
        row[register] = simd.mul_f32s(row[register], share);
    }
}

/// sum_l softmax(weights)_l * logits_l in one register of lanes.
#[inline(always)]
fn mix<S: Simd>(simd: S, weights: &[f32], logits: &[f32], register: usize) -> S::f32s {
    let registers = TILE / S::F32_LANES;
    let (weights, _) = S::as_simd_f32s(weights);
    let (logits, _) = S::as_simd_f32s(logits);
    let mut max = simd.splat_f32s(f32::NEG_INFINITY);
    for row in weights.chunks_exact(registers) {
        max = simd.max_f32s(max, row[register]);
    }
    let mut sums = [simd.splat_f32s(0.0); 2];
    let mut weights = weights.chunks_exact(INTERLEAVED * registers);
    let mut logits = logits.chunks_exact(INTERLEAVED * registers);
    for (weights, logits) in weights.by_ref().zip(logits.by_ref()) {
        add_shares::<S, INTERLEAVED>(simd, max, &weights[register..], &logits[register..], &mut sums);
    }
    let rest = weights.remainder().chunks_exact(registers).zip(logits.remainder().chunks_exact(registers));
    for (weight, logit) in rest {
        add_shares::<S, 1>(simd, max, &weight[register..], &logit[register..], &mut sums);
    }
    simd.div_f32s(sums[1], sums[0])
}

/// For one register of N rows, in order: adds e^(weight - max) to the first sum, and its product with the logit to the second.
#[inline(always)]
fn add_shares<S: Simd, const N: usize>(
    simd: S,
    max: S::f32s,
    weights: &[S::f32s],
    logits: &[S::f32s],
    sums: &mut [S::f32s; 2],
) {
    let registers = TILE / S::F32_LANES;
    let mut shares = [max; N];
    for (i, share) in shares.iter_mut().enumerate() {
        *share = simd.sub_f32s(weights[i * registers], max);
    }
    for (i, &share) in exp(simd, shares).iter().enumerate() {
        sums[0] = simd.add_f32s(sums[0], share);
        sums[1] = simd.mul_add_e_f32s(share, logits[i * registers], sums[1]);
    }
}
