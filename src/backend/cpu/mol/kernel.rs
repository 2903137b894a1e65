//! Mixture-of-Logits of one query and one tile of items, fused: component logits, gate, softmax and mixture stay in the
//! first-level cache (arXiv 2407.15462, equations 2 to 5).
//!
//! Twin of `shaders/lib/mol.wgsl`, `mol_scan.wgsl` and `mol_rescore.wgsl`.

use pulp::{Simd, WithSimd};

use crate::backend::cpu::dot::item_tile::Lanes;
use crate::backend::cpu::dot::micro_kernel::{RowBlocks, Sink, TILE, row, store};
use crate::backend::cpu::simd::aligned::AlignedFloats;
use crate::backend::cpu::simd::math::{ABREAST, Silu, exp, map_in_place, sigmoid};
use crate::config::{GatingCombination, MolConfig};
use crate::model::{CrossGate, Mol};
use crate::tables::{MolTables, Table};
use crate::tensor::Tensor;

/// A cross gate part, packed, and the shape of the mixture.
pub struct MolKernel {
    pub(super) config: MolConfig,
    pub(super) hidden: Option<(RowBlocks, Vec<f32>)>,
    pub(super) output: RowBlocks,
    pub(super) output_bias: Vec<f32>,
    pub(super) n_hidden: usize,
}

impl MolKernel {
    /// Packs the weights that every (query, item) pair needs.
    pub fn new(config: &MolConfig, cross: &CrossGate<Tensor>) -> MolKernel {
        let bias = |bias: &Option<Tensor>, n: usize| bias.as_ref().map_or(vec![0.0; n], |b| b.data().to_vec());
        let output = &cross.output;
        let hidden = cross.hidden.as_ref().map(|layer| {
            let weights = RowBlocks::from_columns(layer.weight.data(), layer.n_out, layer.n_in);
            (weights, bias(&layer.bias, layer.n_out))
        });
        // Hidden units and logits lie one after the other, so a linear part beside the hidden layer is more columns.
        let mut weight = output.weight.data().to_vec();
        if let Some(linear) = &cross.linear {
            weight.extend_from_slice(linear.data());
        }
        MolKernel {
            config: config.clone(),
            hidden,
            output: RowBlocks::from_columns(&weight, output.n_out, weight.len() / output.n_out),
            output_bias: bias(&output.bias, output.n_out),
            n_hidden: cross.hidden.as_ref().map_or(0, |layer| layer.n_out),
        }
    }

    /// L: logits of a pair.
    pub fn n_logits(&self) -> usize {
        self.config.n_logits()
    }
}

/// A query as the kernels need it.
pub struct Query {
    /// (P_Q, D_P) components, or (L, D) transformed ones, packed.
    pub components: RowBlocks,
    /// (L): what is added to the products of transformed components.
    pub bias: Option<Vec<f32>>,
    /// (L): query-only gate part, if there is one.
    pub gate: Option<Vec<f32>>,
}

impl Query {
    /// A query of components (P_Q, D_P) for component tables.
    pub fn plain(config: &MolConfig, components: &[f32], gate: Option<Vec<f32>>) -> Query {
        let (p_q, d_p) = (config.query_dot_product_groups, config.dot_product_dimension);
        Query { components: RowBlocks::from_rows(components, p_q, d_p), bias: None, gate }
    }

    /// The transformed query, for tables of raw embeddings: `<f_n, W_m x + b_m> = <W_m^T f_n, x> + <f_n, b_m>`.
    pub fn transformed(mol: &Mol<Tensor>, components: &[f32], gate: Option<Vec<f32>>) -> Query {
        let (p_x, d_p) = (mol.config.item_dot_product_groups, mol.config.dot_product_dimension);
        let rows = components.chunks_exact(d_p).flat_map(|f| (0..p_x).map(move |m| transform(mol, f, m)));
        let (rows, bias): (Vec<Vec<f32>>, Vec<f32>) = rows.unzip();
        let dim = mol.item.output.n_in;
        Query { components: RowBlocks::from_rows(&rows.concat(), rows.len(), dim), bias: Some(bias), gate }
    }
}

/// `(W_m^T f, <f, b_m>)` for item component m.
pub fn transform(mol: &Mol<Tensor>, f: &[f32], m: usize) -> (Vec<f32>, f32) {
    let (output, d_p) = (&mol.item.output, f.len());
    let dot = |row: &[f32]| row[m * d_p..(m + 1) * d_p].iter().zip(f).map(|(w, f)| w * f).sum::<f32>();
    let row = (0..output.n_in).map(|d| dot(output.weight.row(d))).collect();
    (row, output.bias.as_ref().map_or(0.0, |bias| dot(bias.data())))
}

/// The item side of a tile in lanes, and the memory that making it needs.
#[derive(Default)]
pub struct ItemLanes {
    columns: Lanes,
    inverse_norms: Lanes,
    gate: Lanes,
    has: (bool, bool),
}

impl ItemLanes {
    /// Loads `n` items of the tables: those at `row_of(0..n)`.
    pub fn load(&mut self, raw: &Table, mol: &MolTables, n: usize, row_of: impl Fn(usize) -> usize) {
        let columns = mol.components.as_ref().unwrap_or(raw);
        self.columns.load(columns, 0..columns.groups(), n, &row_of);
        if let Some(norms) = &mol.inverse_norms {
            self.inverse_norms.load(norms, 0..1, n, &row_of);
        }
        if let Some(gate) = &mol.gate {
            self.gate.load(gate, 0..1, n, &row_of);
        }
        self.has = (mol.inverse_norms.is_some(), mol.gate.is_some());
    }

    /// (P_X, TILE), if components are kept as raw embeddings.
    fn inverse_norms(&self) -> Option<&[f32]> {
        self.has.0.then(|| self.inverse_norms.values())
    }

    /// (L, TILE): item-only gate part.
    pub fn gate(&self) -> Option<&[f32]> {
        self.has.1.then(|| self.gate.values())
    }
}

/// Intermediate values of one tile and one query.
#[derive(Default)]
pub struct Work {
    /// (H + L, TILE): hidden units, then logits.
    pub(super) cross: AlignedFloats,
    /// (L, TILE): gates.
    pub(super) gates: AlignedFloats,
}

impl Work {
    /// Room for a kernel.
    pub fn fit(&mut self, kernel: &MolKernel) {
        let n_logits = kernel.n_logits();
        self.cross.resize((kernel.n_hidden + n_logits) * TILE);
        self.gates.resize(n_logits * TILE);
    }

    /// (L, TILE): logits.
    pub fn logits(&mut self, kernel: &MolKernel) -> &mut [f32] {
        &mut self.cross[kernel.n_hidden * TILE..]
    }
}

/// Computes the logits of a tile into `work`.
pub struct LogitStage<'a> {
    pub kernel: &'a MolKernel,
    pub query: &'a Query,
    pub items: &'a ItemLanes,
    pub work: &'a mut Work,
}

impl WithSimd for LogitStage<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let LogitStage { kernel, query, items, work } = self;
        let MolConfig { item_dot_product_groups: p_x, dot_product_dimension: d_p, .. } = kernel.config;
        let inverse_temperature = 1.0 / kernel.config.temperature;
        let logits = work.logits(kernel);
        match (&query.bias, items.inverse_norms()) {
            (Some(bias), Some(norms)) => {
                let mut sink = TransformedLogits { logits, bias, norms, p_x, inverse_temperature };
                query.components.multiply(simd, items.columns.values(), &mut sink);
            }
            _ => {
                for (m, component) in items.columns.values().chunks_exact(d_p * TILE).enumerate() {
                    query.components.multiply(simd, component, &mut Logits { logits, m, p_x, inverse_temperature });
                }
            }
        }
    }
}

/// Scores a tile whose logits are in `work`.
pub struct MixtureStage<'a> {
    pub kernel: &'a MolKernel,
    pub query_gate: Option<&'a [f32]>,
    pub item_gate: Option<&'a [f32]>,
    pub work: &'a mut Work,
    pub scores: &'a mut [f32; TILE],
}

impl WithSimd for MixtureStage<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let MixtureStage { kernel, query_gate, item_gate, work, scores } = self;
        let Work { cross, gates } = work;
        if let Some((layer, bias)) = &kernel.hidden {
            let (hidden, logits) = cross.split_at_mut(kernel.n_hidden * TILE);
            layer.multiply(simd, logits, &mut Biased { sums: hidden, bias });
            // All at once, not as sums come in: more of them are under way at a time.
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

/// For each item of a tile whose logits are in `work`, a number that its score cannot exceed: a mixture is not greater
/// than its largest logit. Rounding, in the logits' own format, adds at most a few units in the last place per logit to the
/// computed score.
pub struct BoundStage<'a> {
    pub kernel: &'a MolKernel,
    pub work: &'a mut Work,
    pub bounds: &'a mut [f32; TILE],
}

impl WithSimd for BoundStage<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let n_logits = self.kernel.n_logits();
        let slack = simd.splat_f32s((4 * n_logits + 16) as f32 * f32::EPSILON);
        let (logits, _) = S::as_simd_f32s(self.work.logits(self.kernel));
        let registers = TILE / S::F32_LANES;
        for register in 0..registers {
            let (mut greatest, mut magnitude) = (simd.splat_f32s(f32::NEG_INFINITY), simd.splat_f32s(0.0));
            for row in logits.chunks_exact(registers) {
                greatest = simd.max_f32s(greatest, row[register]);
                magnitude = simd.max_f32s(magnitude, simd.abs_f32s(row[register]));
            }
            S::as_mut_simd_f32s(self.bounds).0[register] = simd.mul_add_e_f32s(magnitude, slack, greatest);
        }
    }
}

/// Logits of transformed queries: z = (<W_m^T f_n, x> + <f_n, b_m>) / (norm_m * temperature).
struct TransformedLogits<'a> {
    logits: &'a mut [f32],
    bias: &'a [f32],
    norms: &'a [f32],
    p_x: usize,
    inverse_temperature: f32,
}

impl<S: Simd> Sink<S> for TransformedLogits<'_> {
    #[inline(always)]
    fn take(&mut self, simd: S, l: usize, first: usize, [a, b]: [S::f32s; 2]) {
        let (bias, factor) = (simd.splat_f32s(self.bias[l]), simd.splat_f32s(self.inverse_temperature));
        let [norm_a, norm_b] = row::<S>(self.norms, l % self.p_x, first);
        let (a, b) = (simd.add_f32s(a, bias), simd.add_f32s(b, bias));
        let (a, b) = (simd.mul_f32s(a, norm_a), simd.mul_f32s(b, norm_b));
        store::<S>(self.logits, l, first, [simd.mul_f32s(a, factor), simd.mul_f32s(b, factor)]);
    }
}

/// Component logits of item group m: z = <f_n, g_m> / temperature.
struct Logits<'a> {
    logits: &'a mut [f32],
    m: usize,
    p_x: usize,
    inverse_temperature: f32,
}

impl<S: Simd> Sink<S> for Logits<'_> {
    #[inline(always)]
    fn take(&mut self, simd: S, n: usize, first: usize, [a, b]: [S::f32s; 2]) {
        let factor = simd.splat_f32s(self.inverse_temperature);
        let scaled = [simd.mul_f32s(a, factor), simd.mul_f32s(b, factor)];
        store::<S>(self.logits, n * self.p_x + self.m, first, scaled);
    }
}

/// Sums with a bias for each row.
pub(super) struct Biased<'a> {
    pub sums: &'a mut [f32],
    pub bias: &'a [f32],
}

impl<S: Simd> Sink<S> for Biased<'_> {
    #[inline(always)]
    fn take(&mut self, simd: S, row: usize, first: usize, [a, b]: [S::f32s; 2]) {
        let bias = simd.splat_f32s(self.bias[row]);
        store::<S>(self.sums, row, first, [simd.add_f32s(a, bias), simd.add_f32s(b, bias)]);
    }
}

/// Joins the cross part of the gates, which is in `gates` (L, TILE), with the one-sided parts, before their activation:
/// `g = q * i + qi`; for `none` the sum of the parts.
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
    // Leaves the other part as it is: in a product, or in a sum.
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

/// `glu_silu_ln`: g * sigmoid((g - mean) / sqrt(variance + 1e-5)) over the logits, in one register of lanes.
#[inline(always)]
fn normalised_silu<S: Simd>(simd: S, gates: &mut [f32], register: usize) {
    let (gates, _) = S::as_mut_simd_f32s(gates);
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
    let deviation = simd.sqrt_f32s(simd.mul_add_e_f32s(variance, inverse, simd.splat_f32s(1e-5)));
    for row in gates.chunks_exact_mut(registers) {
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
    let mut weights = weights.chunks_exact(ABREAST * registers);
    let mut logits = logits.chunks_exact(ABREAST * registers);
    for (weights, logits) in weights.by_ref().zip(logits.by_ref()) {
        add_shares::<S, ABREAST>(simd, max, &weights[register..], &logits[register..], &mut sums);
    }
    let rest = weights.remainder().chunks_exact(registers).zip(logits.remainder().chunks_exact(registers));
    for (weight, logit) in rest {
        add_shares::<S, 1>(simd, max, &weight[register..], &logit[register..], &mut sums);
    }
    simd.div_f32s(sums[1], sums[0])
}

/// Adds to `sums`, for one register of N rows in order, e^(weight - max), and its products with the logits.
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
