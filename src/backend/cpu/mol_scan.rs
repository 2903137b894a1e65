//! Mixture-of-Logits for all queries and all items, fused: component logits, gate, softmax and mixture of a tile of
//! items stay in the first-level cache (arXiv 2407.15462, equations 2 to 5).
//!
//! Twin of `shaders/lib/mol.wgsl`, `mol_scan.wgsl` and `mol_rescore.wgsl`.

use pulp::{Arch, Simd, WithSimd};

use super::simd::{exp, sigmoid, silu};
use super::table::Table;
use super::tile::{RowBlocks, Sink, TILE, store};
use super::workers::{Found, TileScan};
use crate::config::{GatingCombination, MolConfig};
use crate::model::Mol;
use crate::tensor::Tensor;

/// The cross gate part, packed, and the shape of the mixture.
pub struct MolKernel {
    config: MolConfig,
    hidden: Option<(RowBlocks, Vec<f32>)>,
    output: RowBlocks,
    output_bias: Vec<f32>,
    n_hidden: usize,
}

impl MolKernel {
    /// Packs the weights that every (query, item) pair needs.
    pub fn new(mol: &Mol<Tensor>) -> MolKernel {
        let bias = |bias: &Option<Tensor>, n: usize| bias.as_ref().map_or(vec![0.0; n], |b| b.data().to_vec());
        let output = &mol.gate_cross.output;
        let hidden = mol.gate_cross.hidden.as_ref().map(|layer| {
            let weights = RowBlocks::from_columns(layer.weight.data(), layer.n_out, layer.n_in);
            (weights, bias(&layer.bias, layer.n_out))
        });
        MolKernel {
            config: mol.config.clone(),
            hidden,
            output: RowBlocks::from_columns(output.weight.data(), output.n_out, output.n_in),
            output_bias: bias(&output.bias, output.n_out),
            n_hidden: mol.gate_cross.hidden.as_ref().map_or(0, |layer| layer.n_out),
        }
    }
}

/// A query as the scan needs it.
pub struct Query {
    /// (P_Q, D_P), packed.
    pub components: RowBlocks,
    /// (L): query-only gate part, if there is one.
    pub gate: Option<Vec<f32>>,
}

/// A scan of the item components.
pub struct MolScan<'a> {
    /// Weights and shape.
    pub kernel: &'a MolKernel,
    /// (B)
    pub queries: Vec<Query>,
    /// Item components, width P_X * D_P.
    pub components: &'a Table,
    /// Item-only gate part, width L, if there is one.
    pub gate: Option<&'a Table>,
}

/// Scratch memory of one thread.
#[derive(Default)]
pub struct Scratch {
    components: Vec<f32>,
    gate: Vec<f32>,
    work: Work,
}

/// Intermediate values of one tile and one query.
#[derive(Default)]
struct Work {
    logits: Vec<f32>,
    hidden: Vec<f32>,
    weights: Vec<f32>,
}

impl MolScan<'_> {
    /// Scores of one tile of item components (P_X * D_P, TILE) and gate parts (L, TILE) for one query.
    fn scores(&self, query: &Query, components: &[f32], gate: Option<&[f32]>, work: &mut Work) -> [f32; TILE] {
        let n_logits = self.kernel.config.n_logits();
        work.logits.resize(n_logits * TILE, 0.0);
        work.weights.resize(n_logits * TILE, 0.0);
        work.hidden.resize(self.kernel.n_hidden * TILE, 0.0);
        let mut scores = [0.0; TILE];
        Arch::new().dispatch(Scores {
            kernel: self.kernel,
            query,
            components,
            gate,
            logits: &mut work.logits,
            hidden: &mut work.hidden,
            weights: &mut work.weights,
            scores: &mut scores,
        });
        scores
    }

    /// Scores of the items at `positions` for the query `index`: the same bits as in a scan of everything.
    pub fn rescore(&self, index: usize, positions: &[u32]) -> Vec<f32> {
        let mut scratch = Scratch::default();
        let mut scores = Vec::with_capacity(positions.len());
        for positions in positions.chunks(TILE) {
            self.components.gather(positions, &mut scratch.components);
            let gate = self.gate.map(|table| {
                table.gather(positions, &mut scratch.gate);
                scratch.gate.as_slice()
            });
            let tile = self.scores(&self.queries[index], &scratch.components, gate, &mut scratch.work);
            scores.extend_from_slice(&tile[..positions.len()]);
        }
        scores
    }
}

impl TileScan for MolScan<'_> {
    type Scratch = Scratch;

    fn scan(&self, tiles: std::ops::Range<usize>, scratch: &mut Scratch, found: &mut Found) {
        for tile in tiles {
            let components = self.components.tile(tile, &mut scratch.components);
            let gate = self.gate.map(|table| table.tile(tile, &mut scratch.gate));
            for (index, query) in self.queries.iter().enumerate() {
                found.offer(index, tile, &self.scores(query, components, gate, &mut scratch.work));
            }
        }
    }
}

struct Scores<'a> {
    kernel: &'a MolKernel,
    query: &'a Query,
    components: &'a [f32],
    gate: Option<&'a [f32]>,
    logits: &'a mut [f32],
    hidden: &'a mut [f32],
    weights: &'a mut [f32],
    scores: &'a mut [f32; TILE],
}

impl WithSimd for Scores<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Scores { kernel, query, components, gate, logits, hidden, weights, scores } = self;
        let MolConfig { item_dot_product_groups: p_x, dot_product_dimension: d_p, .. } = kernel.config;
        let inverse_temperature = 1.0 / kernel.config.temperature;
        for (m, component) in components.chunks_exact(d_p * TILE).enumerate() {
            query.components.multiply(simd, component, &mut Logits { logits, m, p_x, inverse_temperature });
        }
        let cross_input: &[f32] = match &kernel.hidden {
            Some((layer, bias)) => {
                layer.multiply(simd, logits, &mut Hidden { hidden, bias });
                hidden
            }
            None => logits,
        };
        let query_gate = query.gate.as_deref();
        kernel.output.multiply(simd, cross_input, &mut Gates { weights, kernel, query_gate, item_gate: gate });
        for register in 0..TILE / S::F32_LANES {
            if kernel.config.gating_combination == GatingCombination::GluSiluLn {
                normalised_silu(simd, weights, register);
            }
            let score = mix(simd, weights, logits, register);
            S::as_mut_simd_f32s(scores).0[register] = score;
        }
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

/// Hidden units of the cross gate part.
struct Hidden<'a> {
    hidden: &'a mut [f32],
    bias: &'a [f32],
}

impl<S: Simd> Sink<S> for Hidden<'_> {
    #[inline(always)]
    fn take(&mut self, simd: S, h: usize, first: usize, [a, b]: [S::f32s; 2]) {
        let bias = simd.splat_f32s(self.bias[h]);
        let units = [silu(simd, simd.add_f32s(a, bias)), silu(simd, simd.add_f32s(b, bias))];
        store::<S>(self.hidden, h, first, units);
    }
}

/// Gates: the cross part joined with the two one-sided parts.
struct Gates<'a> {
    weights: &'a mut [f32],
    kernel: &'a MolKernel,
    query_gate: Option<&'a [f32]>,
    item_gate: Option<&'a [f32]>,
}

impl<S: Simd> Sink<S> for Gates<'_> {
    #[inline(always)]
    fn take(&mut self, simd: S, l: usize, first: usize, [a, b]: [S::f32s; 2]) {
        let bias = simd.splat_f32s(self.kernel.output_bias[l]);
        let combination = self.kernel.config.gating_combination;
        // Leaves the other part as it is: in a product, or in a sum.
        let neutral = if combination == GatingCombination::None { 0.0 } else { 1.0 };
        let neither = self.query_gate.is_none() && self.item_gate.is_none();
        let [item_a, item_b] = match self.item_gate {
            Some(gate) => row::<S>(gate, l, first),
            None => [simd.splat_f32s(if neither { 0.0 } else { neutral }); 2],
        };
        let query = simd.splat_f32s(self.query_gate.map_or(neutral, |gate| gate[l]));
        let (a, b) = (simd.add_f32s(a, bias), simd.add_f32s(b, bias));
        let gates = [combine(simd, combination, query, item_a, a), combine(simd, combination, query, item_b, b)];
        store::<S>(self.weights, l, first, gates);
    }
}

/// Two lane registers of row `row` of a (rows, TILE) array.
#[inline(always)]
fn row<S: Simd>(values: &[f32], row: usize, first: usize) -> [S::f32s; 2] {
    let (registers, _) = S::as_simd_f32s(&values[row * TILE..][..TILE]);
    [registers[first], registers[first + 1]]
}

/// The gate of one register of lanes: `g = q * i + qi`, times its sigmoid for `glu_silu`; for `none` the sum of the parts.
#[inline(always)]
fn combine<S: Simd>(simd: S, combination: GatingCombination, query: S::f32s, item: S::f32s, cross: S::f32s) -> S::f32s {
    match combination {
        GatingCombination::None => simd.add_f32s(simd.add_f32s(query, item), cross),
        GatingCombination::GluSiluLn => simd.mul_add_e_f32s(query, item, cross),
        GatingCombination::GluSilu => silu(simd, simd.mul_add_e_f32s(query, item, cross)),
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
        row[register] = simd.mul_f32s(row[register], sigmoid(simd, normed));
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
    let (mut sum, mut mixed) = (simd.splat_f32s(0.0), simd.splat_f32s(0.0));
    for (weight, logit) in weights.chunks_exact(registers).zip(logits.chunks_exact(registers)) {
        let share = exp(simd, simd.sub_f32s(weight[register], max));
        sum = simd.add_f32s(sum, share);
        mixed = simd.mul_add_e_f32s(share, logit[register], mixed);
    }
    simd.div_f32s(mixed, sum)
}
