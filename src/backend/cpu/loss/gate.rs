//! From the parts of the gate of a tile to its probabilities, and back. All arrays are (L, TILE): pairs in lanes.

use pulp::Simd;

use crate::backend::cpu::dot::micro_kernel::TILE;
use crate::backend::cpu::mol::mixture::gate_norm;
use crate::backend::cpu::simd::math::{INTERLEAVED, exp, sigmoid};
use crate::config::GatingCombination;

/// Least sum that the probabilities that are left by dropout are divided by.
const LEAST_SUM: f32 = 1e-6;

/// The gate of a tile.
#[derive(Clone, Copy)]
pub struct Gate<'a> {
    /// How its parts are combined.
    pub combination: GatingCombination,
    /// The query-only part, if there is one.
    pub query: Option<&'a [f32]>,
    /// The item-only part, if there is one.
    pub item: Option<&'a [f32]>,
}

/// What the way back needs.
pub struct GateValues<'a> {
    /// The slopes of SiLU, or what `glu_silu_ln` normalises.
    pub inputs: &'a [f32],
    /// The probabilities.
    pub probabilities: &'a [f32],
    /// The probabilities, but where dropout left a sum below [`LEAST_SUM`], those before it.
    pub references: &'a [f32],
}

impl Gate<'_> {
    /// What a part is multiplied by on the way to the sum of parts: the other one, in a product of them.
    fn factor<'b>(&self, other: Option<&'b [f32]>) -> Option<&'b [f32]> {
        other.filter(|_| self.combination != GatingCombination::None)
    }

    /// What the derivative of the gate is multiplied by to be that of the query's part; `None`: 1.
    pub fn query_factor(&self) -> Option<&[f32]> {
        self.factor(self.item)
    }

    /// The same of the item's part.
    pub fn item_factor(&self) -> Option<&[f32]> {
        self.factor(self.query)
    }

    /// From the cross part, in `gates`, to the probabilities before dropout. `gates` gets what [`GateValues::inputs`] says.
    #[inline(always)]
    pub fn probabilities<S: Simd>(&self, simd: S, gates: &mut [f32], out: &mut [f32]) {
        self.join(simd, gates);
        match self.combination {
            GatingCombination::None => out.copy_from_slice(gates),
            GatingCombination::GluSilu => silu_and_slopes(simd, gates, out),
            GatingCombination::GluSiluLn => {
                for register in 0..TILE / S::F32_LANES {
                    normalised_silu(simd, gates, register, out);
                }
            }
        }
        for register in 0..TILE / S::F32_LANES {
            softmax(simd, register, out);
        }
    }

    /// `query * item + cross`, or for `none` the sum of the three.
    #[inline(always)]
    fn join<S: Simd>(&self, simd: S, gates: &mut [f32]) {
        let (gates, _) = S::as_mut_simd_f32s(gates);
        let [(query, _), (item, _)] = [self.query, self.item].map(|part| S::as_simd_f32s(part.unwrap_or_default()));
        match (self.combination, query, item) {
            (_, [], []) => {}
            (GatingCombination::GluSilu | GatingCombination::GluSiluLn, query @ [_, ..], item @ [_, ..]) => {
                for ((gate, &query), &item) in gates.iter_mut().zip(query).zip(item) {
                    *gate = simd.mul_add_e_f32s(query, item, *gate);
                }
            }
            // A missing part is neutral, in a product as in a sum.
            (_, query, item) => {
                for part in [query, item] {
                    for (gate, &part) in gates.iter_mut().zip(part) {
                        *gate = simd.add_f32s(*gate, part);
                    }
                }
            }
        }
    }

    /// From the derivatives with respect to the probabilities, `c z + extra` with a `c` for each pair, to those with respect to the
    /// sum of the gate's parts.
    #[inline(always)]
    pub fn back<S: Simd>(
        &self,
        simd: S,
        values: &GateValues,
        (coefficients, logits, extra): (&[f32], &[f32], Option<&[f32]>),
        out: &mut [f32],
    ) {
        let registers = TILE / S::F32_LANES;
        for register in 0..registers {
            {
                let lanes = |values| S::as_simd_f32s(values).0;
                let (probabilities, references) = (lanes(values.probabilities), lanes(values.references));
                let (logits, extra) = (lanes(logits), lanes(extra.unwrap_or_default()));
                let (inputs, coefficient) = (lanes(values.inputs), lanes(coefficients)[register]);
                let (out, _) = S::as_mut_simd_f32s(out);
                let mut mean = simd.splat_f32s(0.0);
                for i in (register..out.len()).step_by(registers) {
                    out[i] = match extra.get(i) {
                        Some(&extra) => simd.mul_add_e_f32s(coefficient, logits[i], extra),
                        None => simd.mul_f32s(coefficient, logits[i]),
                    };
                    mean = simd.mul_add_e_f32s(probabilities[i], out[i], mean);
                }
                for i in (register..out.len()).step_by(registers) {
                    let through = simd.mul_f32s(probabilities[i], out[i]);
                    out[i] = simd.negate_mul_add_e_f32s(references[i], mean, through);
                    if self.combination == GatingCombination::GluSilu {
                        out[i] = simd.mul_f32s(out[i], inputs[i]);
                    }
                }
            }
            if self.combination == GatingCombination::GluSiluLn {
                normalised_silu_back(simd, values.inputs, register, out);
            }
        }
    }
}

/// Dropout: `probabilities` times `kept`, over their sum; what they were is in `references` where that is too small.
#[inline(always)]
pub fn drop_out<S: Simd>(simd: S, kept: &[f32], probabilities: &mut [f32], references: &mut [f32]) {
    let registers = TILE / S::F32_LANES;
    let ((kept, _), (probabilities, _)) = (S::as_simd_f32s(kept), S::as_mut_simd_f32s(probabilities));
    let (references, _) = S::as_mut_simd_f32s(references);
    let least = simd.splat_f32s(LEAST_SUM);
    for register in 0..registers {
        let mut sum = simd.splat_f32s(0.0);
        for i in (register..kept.len()).step_by(registers) {
            sum = simd.mul_add_e_f32s(probabilities[i], kept[i], sum);
        }
        let is_enough = simd.greater_than_f32s(sum, least);
        let inverse = simd.div_f32s(simd.splat_f32s(1.0), simd.select_f32s(is_enough, sum, least));
        for i in (register..kept.len()).step_by(registers) {
            let before = probabilities[i];
            probabilities[i] = simd.mul_f32s(simd.mul_f32s(before, kept[i]), inverse);
            references[i] = simd.select_f32s(is_enough, probabilities[i], before);
        }
    }
}

/// Replaces x by the slopes of SiLU, and writes SiLU(x) to `out`.
#[inline(always)]
pub fn silu_and_slopes<S: Simd>(simd: S, x: &mut [f32], out: &mut [f32]) {
    let one = simd.splat_f32s(1.0);
    let ((x, _), (out, _)) = (S::as_mut_simd_f32s(x), S::as_mut_simd_f32s(out));
    let ((x, x_rest), (out, out_rest)) = (x.as_chunks_mut::<INTERLEAVED>(), out.as_chunks_mut::<INTERLEAVED>());
    for (x, out) in x.iter_mut().zip(out) {
        let shares = sigmoid(simd, *x);
        for i in 0..INTERLEAVED {
            out[i] = simd.mul_f32s(x[i], shares[i]);
            x[i] = simd.mul_add_e_f32s(out[i], simd.sub_f32s(one, shares[i]), shares[i]);
        }
    }
    for (x, out) in x_rest.iter_mut().zip(out_rest) {
        let [share] = sigmoid(simd, [*x]);
        *out = simd.mul_f32s(*x, share);
        *x = simd.mul_add_e_f32s(*out, simd.sub_f32s(one, share), share);
    }
}

/// `g * sigmoid((g - mean) / deviation)`, in one register of lanes.
#[inline(always)]
fn normalised_silu<S: Simd>(simd: S, gates: &[f32], register: usize, out: &mut [f32]) {
    let (mean, deviation) = gate_norm(simd, gates, register);
    let ((gates, _), (out, _)) = (S::as_simd_f32s(gates), S::as_mut_simd_f32s(out));
    for i in (register..gates.len()).step_by(TILE / S::F32_LANES) {
        let [share] = sigmoid(simd, [simd.div_f32s(simd.sub_f32s(gates[i], mean), deviation)]);
        out[i] = simd.mul_f32s(gates[i], share);
    }
}

/// From derivatives with respect to [`normalised_silu`] to those with respect to its inputs.
#[inline(always)]
fn normalised_silu_back<S: Simd>(simd: S, gates: &[f32], register: usize, out: &mut [f32]) {
    let registers = TILE / S::F32_LANES;
    let inverse = simd.splat_f32s(1.0 / (gates.len() / TILE) as f32);
    let (mean, deviation) = gate_norm(simd, gates, register);
    let ((gates, _), (out, _)) = (S::as_simd_f32s(gates), S::as_mut_simd_f32s(out));
    let (mut mean_slope, mut along) = (simd.splat_f32s(0.0), simd.splat_f32s(0.0));
    for i in (register..gates.len()).step_by(registers) {
        let (normed, _, of_normed) = through_sigmoid(simd, out[i], gates[i], (mean, deviation));
        mean_slope = simd.mul_add_e_f32s(of_normed, inverse, mean_slope);
        along = simd.mul_add_e_f32s(simd.mul_f32s(of_normed, normed), inverse, along);
    }
    for i in (register..gates.len()).step_by(registers) {
        let (normed, direct, of_normed) = through_sigmoid(simd, out[i], gates[i], (mean, deviation));
        let through = simd.sub_f32s(simd.sub_f32s(of_normed, mean_slope), simd.mul_f32s(normed, along));
        out[i] = simd.add_f32s(direct, simd.div_f32s(through, deviation));
    }
}

/// The normalised gate, and the derivatives with respect to the gate, this left out, and to the normalised gate.
#[inline(always)]
fn through_sigmoid<S: Simd>(
    simd: S,
    of_weight: S::f32s,
    gate: S::f32s,
    (mean, deviation): (S::f32s, S::f32s),
) -> (S::f32s, S::f32s, S::f32s) {
    let normed = simd.div_f32s(simd.sub_f32s(gate, mean), deviation);
    let [share] = sigmoid(simd, [normed]);
    let slope = simd.mul_f32s(share, simd.sub_f32s(simd.splat_f32s(1.0), share));
    (normed, simd.mul_f32s(of_weight, share), simd.mul_f32s(simd.mul_f32s(of_weight, gate), slope))
}

/// The softmax over l, in one register of lanes. A NaN or an infinity makes all NaN.
#[inline(always)]
fn softmax<S: Simd>(simd: S, register: usize, values: &mut [f32]) {
    let registers = TILE / S::F32_LANES;
    let (values, _) = S::as_mut_simd_f32s(values);
    let (zero, mut greatest) = (simd.splat_f32s(0.0), simd.splat_f32s(f32::NEG_INFINITY));
    // Exponentials are clamped, which would hide them.
    let mut total = zero;
    for row in values.chunks_exact(registers) {
        greatest = simd.max_f32s(greatest, row[register]);
        total = simd.mul_add_e_f32s(row[register], zero, total);
    }
    let mut rows = values.chunks_exact_mut(INTERLEAVED * registers);
    for rows in &mut rows {
        total = exponentials::<S, INTERLEAVED>(simd, (register, greatest), rows, total);
    }
    for row in rows.into_remainder().chunks_exact_mut(registers) {
        total = exponentials::<S, 1>(simd, (register, greatest), row, total);
    }
    let inverse = simd.div_f32s(simd.splat_f32s(1.0), total);
    for row in values.chunks_exact_mut(registers) {
        row[register] = simd.mul_f32s(row[register], inverse);
    }
}

/// Replaces one register of N rows by e^(x - greatest), and adds them to the total.
#[inline(always)]
fn exponentials<S: Simd, const N: usize>(
    simd: S,
    (register, greatest): (usize, S::f32s),
    rows: &mut [S::f32s],
    mut total: S::f32s,
) -> S::f32s {
    let registers = TILE / S::F32_LANES;
    let mut values = [greatest; N];
    for (i, value) in values.iter_mut().enumerate() {
        *value = simd.sub_f32s(rows[i * registers + register], greatest);
    }
    for (i, &value) in exp(simd, values).iter().enumerate() {
        rows[i * registers + register] = value;
        total = simd.add_f32s(total, value);
    }
    total
}
