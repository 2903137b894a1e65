//! The derivative of the Mixture-of-Logits score with respect to its component logits, for a tile of items.
//!
//! Forward, as [`mixture`](super::mixture): logits z, hidden units, gates g, weights w = activation(g), shares pi = softmax(w), score
//! s = sum pi_l z_l. Back: ds/dz_l is pi_l through the mixture, plus what comes through the gate, where ds/dw_l = pi_l (z_l - s).

use pulp::{Simd, WithSimd};

use super::kernel::MolKernel;
use super::mixture::{Biased, gate_norm, join_gates};
use super::scratch::MolScratch;
use crate::backend::cpu::dot::micro_kernel::{AddTo, RowBlocks, Sink, TILE, row, store};
use crate::backend::cpu::simd::aligned::AlignedFloats;
use crate::backend::cpu::simd::math::{exp, sigmoid, silu};
use crate::config::GatingCombination;
use crate::model::CrossGate;
use crate::tensor::Tensor;

/// The weights of the cross part of the gate, transposed for the way back.
pub struct MolGradient {
    /// (H or L, L): from gates to hidden units, or to logits if there is no hidden layer.
    output: RowBlocks,
    /// (L, H): from hidden units to logits.
    hidden: Option<RowBlocks>,
}

impl MolGradient {
    /// Transposes and packs the weights.
    pub fn new(cross: &CrossGate<Tensor>) -> MolGradient {
        let transposed =
            |layer: &crate::ops::Linear<Tensor>| RowBlocks::from_rows(layer.weight.data(), layer.n_in, layer.n_out);
        MolGradient { output: transposed(&cross.output), hidden: cross.hidden.as_ref().map(transposed) }
    }
}

/// Intermediate values of one tile. Memory of one thread.
#[derive(Default)]
pub struct GradientScratch {
    /// (H, TILE): hidden units before their activation, then the derivatives with respect to these.
    hidden: AlignedFloats,
    /// (L, TILE): derivatives with respect to the gates before their activation.
    gates: AlignedFloats,
    /// (L, TILE): derivatives with respect to the logits.
    logits: AlignedFloats,
}

impl GradientScratch {
    /// (L, TILE): the result.
    pub fn gradient(&self) -> &[f32] {
        &self.logits
    }
}

/// Computes the derivatives of a tile whose logits are in `work` into `out`.
pub struct GradientStage<'a> {
    pub kernel: &'a MolKernel,
    pub gradient: &'a MolGradient,
    pub query_gate: Option<&'a [f32]>,
    pub item_gate: Option<&'a [f32]>,
    pub work: &'a mut MolScratch,
    pub out: &'a mut GradientScratch,
}

impl WithSimd for GradientStage<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let GradientStage { kernel, gradient, query_gate, item_gate, work, out } = self;
        let (n_logits, n_hidden) = (kernel.n_logits(), kernel.n_hidden);
        out.hidden.resize(n_hidden * TILE);
        out.gates.resize(n_logits * TILE);
        out.logits.resize(n_logits * TILE);
        let MolScratch { cross, gates } = work;

        // Forward. What the way back needs is kept.
        let (hidden, logits) = cross.split_at_mut(n_hidden * TILE);
        if let Some((layer, bias)) = &kernel.hidden {
            layer.multiply(simd, logits, &mut HiddenLayer { hidden, inputs: &mut out.hidden, bias });
        }
        kernel.output.multiply(simd, cross, &mut Biased { sums: gates, bias: &kernel.output_bias });
        join_gates(simd, kernel.config.gating_combination, query_gate, item_gate, gates);
        let logits = &cross[n_hidden * TILE..];
        for register in 0..TILE / S::F32_LANES {
            gate_derivatives(simd, kernel.config.gating_combination, (gates, logits), register, out);
        }

        // Back: the logits act directly through the mixture, and through the gate.
        let GradientScratch { hidden: inputs, gates: of_gates, logits: of_logits } = out;
        match &gradient.hidden {
            Some(layer) => {
                let mut of_hidden = HiddenSlope { values: inputs };
                gradient.output.multiply(simd, of_gates, &mut of_hidden);
                layer.multiply(simd, inputs, &mut AddTo(of_logits));
            }
            None => gradient.output.multiply(simd, of_gates, &mut AddTo(of_logits)),
        }
    }
}

/// Stores hidden units before and after their activation.
struct HiddenLayer<'a> {
    hidden: &'a mut [f32],
    inputs: &'a mut [f32],
    bias: &'a [f32],
}

impl<S: Simd> Sink<S> for HiddenLayer<'_> {
    #[inline(always)]
    fn take(&mut self, simd: S, h: usize, first: usize, [a, b]: [S::f32s; 2]) {
        let bias = simd.splat_f32s(self.bias[h]);
        let inputs = [simd.add_f32s(a, bias), simd.add_f32s(b, bias)];
        store::<S>(self.inputs, h, first, inputs);
        store::<S>(self.hidden, h, first, silu(simd, inputs));
    }
}

/// Replaces the inputs of SiLU by derivatives with respect to them: those with respect to its outputs, times its slope.
struct HiddenSlope<'a> {
    values: &'a mut [f32],
}

impl<S: Simd> Sink<S> for HiddenSlope<'_> {
    #[inline(always)]
    fn take(&mut self, simd: S, h: usize, first: usize, [a, b]: [S::f32s; 2]) {
        let [x, y] = row::<S>(self.values, h, first);
        let slopes = [silu_slope(simd, x), silu_slope(simd, y)];
        store::<S>(self.values, h, first, [simd.mul_f32s(a, slopes[0]), simd.mul_f32s(b, slopes[1])]);
    }
}

/// From gates before their activation to the derivatives with respect to them and, through the mixture only, to the logits.
#[inline(always)]
fn gate_derivatives<S: Simd>(
    simd: S,
    combination: GatingCombination,
    (gates, logits): (&[f32], &[f32]),
    register: usize,
    out: &mut GradientScratch,
) {
    let registers = TILE / S::F32_LANES;
    let n_logits = gates.len() / TILE;
    let zero = simd.splat_f32s(0.0);
    let one = simd.splat_f32s(1.0);
    let inverse = simd.splat_f32s(1.0 / n_logits as f32);

    let (mean, deviation) = match combination {
        GatingCombination::GluSiluLn => gate_norm(simd, gates, register),
        GatingCombination::GluSilu | GatingCombination::None => (zero, one),
    };
    let (gates, _) = S::as_simd_f32s(gates);
    let (logits, _) = S::as_simd_f32s(logits);
    let (of_gates, _) = S::as_mut_simd_f32s(&mut out.gates);
    let (of_logits, _) = S::as_mut_simd_f32s(&mut out.logits);

    // The mixture: weights in of_gates, shares in of_logits.
    let mut greatest = simd.splat_f32s(f32::NEG_INFINITY);
    for l in 0..n_logits {
        let g = gates[l * registers + register];
        let weight = match combination {
            GatingCombination::None => g,
            _ => {
                let [share] = sigmoid(simd, [simd.div_f32s(simd.sub_f32s(g, mean), deviation)]);
                simd.mul_f32s(g, share)
            }
        };
        of_gates[l * registers + register] = weight;
        greatest = simd.max_f32s(greatest, weight);
    }
    let mut total = zero;
    for l in 0..n_logits {
        let [share] = exp(simd, [simd.sub_f32s(of_gates[l * registers + register], greatest)]);
        of_logits[l * registers + register] = share;
        total = simd.add_f32s(total, share);
    }
    let mut score = zero;
    for l in 0..n_logits {
        let share = simd.div_f32s(of_logits[l * registers + register], total);
        of_logits[l * registers + register] = share;
        score = simd.mul_add_e_f32s(share, logits[l * registers + register], score);
    }

    // Back through the activation of the gates.
    let (mut mean_dy, mut along) = (zero, zero);
    for l in 0..n_logits {
        let (g, z) = (gates[l * registers + register], logits[l * registers + register]);
        let of_weight = simd.mul_f32s(of_logits[l * registers + register], simd.sub_f32s(z, score));
        let normed = simd.div_f32s(simd.sub_f32s(g, mean), deviation);
        let [s] = sigmoid(simd, [normed]);
        of_gates[l * registers + register] = match combination {
            GatingCombination::None => of_weight,
            GatingCombination::GluSilu => simd.mul_f32s(of_weight, silu_slope(simd, g)),
            GatingCombination::GluSiluLn => {
                let dy = simd.mul_f32s(simd.mul_f32s(of_weight, g), simd.mul_f32s(s, simd.sub_f32s(one, s)));
                mean_dy = simd.mul_add_e_f32s(dy, inverse, mean_dy);
                along = simd.mul_add_e_f32s(simd.mul_f32s(dy, normed), inverse, along);
                // The part that does not go through the layer norm. The rest needs the means over all l, so it follows below.
                simd.mul_f32s(of_weight, s)
            }
        };
    }
    if combination == GatingCombination::GluSiluLn {
        for l in 0..n_logits {
            let (g, z) = (gates[l * registers + register], logits[l * registers + register]);
            let of_weight = simd.mul_f32s(of_logits[l * registers + register], simd.sub_f32s(z, score));
            let normed = simd.div_f32s(simd.sub_f32s(g, mean), deviation);
            let [s] = sigmoid(simd, [normed]);
            let dy = simd.mul_f32s(simd.mul_f32s(of_weight, g), simd.mul_f32s(s, simd.sub_f32s(one, s)));
            let through = simd.sub_f32s(simd.sub_f32s(dy, mean_dy), simd.mul_f32s(normed, along));
            let place = &mut of_gates[l * registers + register];
            *place = simd.add_f32s(*place, simd.div_f32s(through, deviation));
        }
    }
}

/// Derivative of x * sigmoid(x).
#[inline(always)]
fn silu_slope<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let [s] = sigmoid(simd, [x]);
    let one = simd.splat_f32s(1.0);
    simd.mul_f32s(s, simd.mul_add_e_f32s(x, simd.sub_f32s(one, s), one))
}
