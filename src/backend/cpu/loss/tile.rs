//! Mixture-of-Logits of a tile of pairs, forward and back. Arrays are (.., TILE), pairs in lanes; those called rows are (TILE, ..).

use pulp::Simd;

use super::cross_gate::{CrossParts, CrossWeights, add_products};
use super::gate::{Gate, GateValues, drop_out, silu_and_slopes};
use crate::backend::cpu::dot::micro_kernel::{AddTo, Sink, TILE, row, store};
use crate::backend::cpu::mol::mixture::Biased;
use crate::backend::cpu::simd::aligned::AlignedFloats;
use crate::backend::cpu::simd::prefetch::PrefetchQueue;
use crate::backend::cpu::simd::transpose::{Transpose, transpose_matrix};
use crate::backend::loss::GateDropout;
use crate::config::GatingCombination;
use crate::random::Dropout;

/// What the way back needs of the way there.
#[derive(Default)]
pub struct Tile {
    /// (L, TILE): component logits.
    pub logits: AlignedFloats,
    /// (L, TILE), or nothing: the one-sided parts of the gate.
    pub query_gate: AlignedFloats,
    pub item_gate: AlignedFloats,
    /// (L, TILE): the gate's probabilities, after dropout.
    pub probabilities: AlignedFloats,
    /// (H + L, TILE): hidden units, then the logits that the cross part sees.
    cross: AlignedFloats,
    /// (H, TILE): slopes of SiLU at the hidden units.
    slopes: AlignedFloats,
    /// (L, TILE): see [`GateValues`].
    inputs: AlignedFloats,
    references: AlignedFloats,
    /// (L, TILE): what dropout multiplied the logits by, if there was any.
    kept_logits: AlignedFloats,
}

/// Intermediate values.
#[derive(Default)]
pub struct TileWork {
    /// (TILE, 2 L)
    pub rows: AlignedFloats,
    /// (L, TILE)
    pub lanes: AlignedFloats,
    /// (L, TILE): derivatives with respect to the gate, and to the logits.
    gates: AlignedFloats,
    logits: AlignedFloats,
    /// (H, TILE): derivatives with respect to the hidden units before their activation.
    hidden: AlignedFloats,
    /// (TILE, row): the gate's derivatives, and the logits that the cross part saw.
    gate_rows: AlignedFloats,
    logit_rows: AlignedFloats,
}

/// Gradients of a tile's pairs.
pub struct PairRows<'a> {
    /// (pairs, L or 2 L): of the inner products of components, and of the item-only part of the gate, if there is one.
    pub pairs: &'a mut [f32],
    /// (pairs, L), or nothing: of the query-only part of the gate.
    pub query_gate: &'a mut [f32],
}

impl Tile {
    /// Makes room. One-sided parts of the gate are there if they have been.
    pub fn fit(&mut self, weights: &CrossWeights, has_query_gate: bool, has_item_gate: bool) {
        let (logits, hidden) = (weights.n_logits * TILE, weights.n_hidden * TILE);
        self.logits.resize(logits);
        self.query_gate.resize(if has_query_gate { logits } else { 0 });
        self.item_gate.resize(if has_item_gate { logits } else { 0 });
        self.probabilities.resize(logits);
        self.cross.resize(hidden + logits);
        self.slopes.resize(hidden);
        self.inputs.resize(logits);
        self.references.resize(logits);
        self.kept_logits.resize(logits);
    }

    fn gate(&self, combination: GatingCombination) -> Gate<'_> {
        let part = |part: &AlignedFloats| !part.is_empty();
        Gate {
            combination,
            query: part(&self.query_gate).then_some(&self.query_gate),
            item: part(&self.item_gate).then_some(&self.item_gate),
        }
    }

    /// From the logits to the scores of the pairs `first ..`.
    #[inline(always)]
    pub fn forward<S: Simd, K: Transpose>(
        &mut self,
        simd: S,
        kernel: &K,
        (weights, combination): (&CrossWeights, GatingCombination),
        (dropout, first): (&GateDropout, usize),
        (work, prefetch): (&mut TileWork, &mut PrefetchQueue),
        scores: &mut [f32],
    ) {
        let n_hidden = weights.n_hidden * TILE;
        self.cross[n_hidden..].copy_from_slice(&self.logits);
        if dropout.logits.rate() > 0.0 {
            mask(kernel, dropout.logits, first * weights.n_logits, work, &mut self.kept_logits);
            let (kept, _) = S::as_simd_f32s(&self.kept_logits);
            for (logit, &kept) in S::as_mut_simd_f32s(&mut self.cross[n_hidden..]).0.iter_mut().zip(kept) {
                *logit = simd.mul_f32s(*logit, kept);
            }
        }
        if let Some(layer) = &weights.hidden {
            let (hidden, logits) = self.cross.split_at_mut(n_hidden);
            let sink = Biased { sums: &mut self.slopes, bias: &layer.bias };
            layer.weights.multiply(simd, logits, &mut Prefetching { sink, prefetch, part: 2 });
            silu_and_slopes(simd, &mut self.slopes, hidden);
        }
        let mut inputs = std::mem::take(&mut self.inputs);
        let sink = Biased { sums: &mut inputs, bias: &weights.output_bias };
        weights.output.multiply(simd, &self.cross, &mut Prefetching { sink, prefetch, part: 1 });
        let mut probabilities = std::mem::take(&mut self.probabilities);
        self.gate(combination).probabilities(simd, &mut inputs, &mut probabilities);
        (self.inputs, self.probabilities) = (inputs, probabilities);
        if dropout.probabilities.rate() > 0.0 {
            let mut kept = std::mem::take(&mut work.lanes);
            mask(kernel, dropout.probabilities, first * weights.n_logits, work, &mut kept);
            drop_out(simd, &kept, &mut self.probabilities, &mut self.references);
            work.lanes = kept;
        }
        let registers = TILE / S::F32_LANES;
        let (logits, _) = S::as_simd_f32s(&self.logits);
        let (probabilities, _) = S::as_simd_f32s(&self.probabilities);
        for (register, score) in S::as_mut_simd_f32s(scores).0.iter_mut().enumerate() {
            *score = simd.splat_f32s(0.0);
            for i in (register..logits.len()).step_by(registers) {
                *score = simd.mul_add_e_f32s(probabilities[i], logits[i], *score);
            }
        }
    }

    /// From the derivatives with respect to the scores, `coefficients` (TILE), and beside these to the probabilities, `extra`
    /// (L, TILE), to the gradients. Those of weights are added to `sums`.
    #[inline(always)]
    #[allow(clippy::too_many_arguments, reason = "the way back has as many results as the way there has inputs")]
    pub fn back<S: Simd, K: Transpose>(
        &self,
        simd: S,
        kernel: &K,
        (weights, combination, temperature): (&CrossWeights, GatingCombination, f32),
        dropout: &GateDropout,
        (coefficients, extra): (&[f32], Option<&[f32]>),
        work: &mut TileWork,
        sums: &mut CrossParts,
        out: PairRows,
    ) {
        let (n_logits, n_hidden) = (weights.n_logits, weights.n_hidden * TILE);
        let gate = self.gate(combination);
        let references = if dropout.probabilities.rate() > 0.0 { &self.references } else { &self.probabilities };
        let (inputs, probabilities) = (&self.inputs, &self.probabilities);
        gate.back(
            simd,
            &GateValues { inputs, probabilities, references },
            (coefficients, &self.logits, extra),
            &mut work.gates,
        );

        // The weights.
        transpose_matrix(kernel, &work.gates, TILE, &mut work.gate_rows, weights.row());
        transpose_matrix(kernel, &self.cross[n_hidden..], TILE, &mut work.logit_rows, weights.row());
        let used = &self.cross[..weights.n_inputs * TILE];
        add_products(simd, used, &work.gate_rows, n_logits, weights.row(), sums.output);
        for gates in work.gate_rows.chunks_exact(weights.row()) {
            for (sum, &gate) in S::as_mut_simd_f32s(sums.output_bias).0.iter_mut().zip(S::as_simd_f32s(gates).0) {
                *sum = simd.add_f32s(*sum, gate);
            }
        }
        work.logits.fill(0.0);
        let (slopes, hidden, logits) = (&self.slopes, &mut work.hidden, &mut work.logits);
        let mut of_inputs = InputsBack { slopes, hidden, bias: sums.hidden_bias, logits };
        weights.output_back.multiply(simd, &work.gates, &mut of_inputs);
        if let Some(layer) = &weights.hidden {
            add_products(simd, &work.hidden, &work.logit_rows, n_logits, weights.row(), sums.hidden);
            layer.back.multiply(simd, &work.hidden, &mut AddTo(&mut work.logits));
        }

        // The logits: through the cross part, and through the mixture.
        if dropout.logits.rate() > 0.0 {
            multiply(simd, &mut work.logits, &self.kept_logits);
        }
        let registers = TILE / S::F32_LANES;
        let inverse = simd.splat_f32s(1.0 / temperature);
        let (coefficients, _) = S::as_simd_f32s(coefficients);
        let (probabilities, _) = S::as_simd_f32s(&self.probabilities);
        for (i, logit) in S::as_mut_simd_f32s(&mut work.logits).0.iter_mut().enumerate() {
            let sum = simd.mul_add_e_f32s(coefficients[i % registers], probabilities[i], *logit);
            *logit = simd.mul_f32s(sum, inverse);
        }
        if gate.query.is_some() {
            transpose_product(
                simd,
                kernel,
                (&work.gates, gate.query_factor()),
                &mut work.lanes,
                &mut work.rows,
                n_logits,
            );
            out.query_gate.copy_from_slice(&work.rows[..out.query_gate.len()]);
        }
        let stride = if gate.item.is_some() { 2 * n_logits } else { n_logits };
        if gate.item.is_some() {
            let rows = &mut work.rows[n_logits..];
            transpose_product(simd, kernel, (&work.gates, gate.item_factor()), &mut work.lanes, rows, stride);
        }
        transpose_matrix(kernel, &work.logits, TILE, &mut work.rows, stride);
        out.pairs.copy_from_slice(&work.rows[..out.pairs.len()]);
    }
}

impl TileWork {
    /// Makes room.
    pub fn fit(&mut self, weights: &CrossWeights) {
        let (logits, row) = (weights.n_logits * TILE, weights.row());
        for values in [&mut self.lanes, &mut self.gates, &mut self.logits] {
            values.resize(logits);
        }
        self.rows.resize(2 * logits);
        self.hidden.resize(weights.n_hidden * TILE);
        self.gate_rows.resize(TILE * row);
        self.logit_rows.resize(TILE * row);
    }
}

/// (L, TILE): what dropout multiplies the elements `first ..` of the tile's pairs by.
#[inline(always)]
fn mask<K: Transpose>(kernel: &K, dropout: Dropout, first: usize, work: &mut TileWork, out: &mut [f32]) {
    let rows = &mut work.rows[..out.len()];
    rows.fill(1.0);
    dropout.apply(first as u64, rows);
    transpose_matrix(kernel, rows, out.len() / TILE, out, TILE);
}

/// Writes values times factors (L, TILE), by way of `lanes` (L, TILE), to the first columns of `rows` (TILE, stride).
#[inline(always)]
fn transpose_product<S: Simd, K: Transpose>(
    simd: S,
    kernel: &K,
    (values, factors): (&[f32], Option<&[f32]>),
    lanes: &mut [f32],
    rows: &mut [f32],
    stride: usize,
) {
    let Some(factors) = factors else {
        transpose_matrix(kernel, values, TILE, rows, stride);
        return;
    };
    lanes.copy_from_slice(values);
    multiply(simd, lanes, factors);
    transpose_matrix(kernel, lanes, TILE, rows, stride);
}

/// Multiplies all values by factors.
#[inline(always)]
fn multiply<S: Simd>(simd: S, values: &mut [f32], factors: &[f32]) {
    for (value, &factor) in S::as_mut_simd_f32s(values).0.iter_mut().zip(S::as_simd_f32s(factors).0) {
        *value = simd.mul_f32s(*value, factor);
    }
}

/// A sink that prefetches one of so many parts of what is in the queue between products.
struct Prefetching<'a, T> {
    sink: T,
    prefetch: &'a mut PrefetchQueue,
    part: usize,
}

impl<S: Simd, T: Sink<S>> Sink<S> for Prefetching<'_, T> {
    #[inline(always)]
    fn take(&mut self, simd: S, row: usize, first: usize, sums: [S::f32s; 2]) {
        self.sink.take(simd, row, first, sums);
    }

    #[inline(always)]
    fn expect_steps(&mut self, n: usize) {
        self.prefetch.spread_over(self.part * n);
    }

    #[inline(always)]
    fn step(&mut self) {
        self.prefetch.step();
    }
}

/// From derivatives with respect to the inputs of the output layer: those of hidden units before their activation, which are also
/// those of the hidden layer's bias, and of logits.
struct InputsBack<'a> {
    slopes: &'a [f32],
    hidden: &'a mut [f32],
    bias: &'a mut [f32],
    logits: &'a mut [f32],
}

impl<S: Simd> Sink<S> for InputsBack<'_> {
    #[inline(always)]
    fn take(&mut self, simd: S, input: usize, first: usize, [a, b]: [S::f32s; 2]) {
        let n_hidden = self.slopes.len() / TILE;
        if input >= n_hidden {
            store::<S>(self.logits, input - n_hidden, first, [a, b]);
            return;
        }
        let [x, y] = row::<S>(self.slopes, input, first);
        let values = [simd.mul_f32s(a, x), simd.mul_f32s(b, y)];
        store::<S>(self.hidden, input, first, values);
        let [x, y] = row::<S>(self.bias, input, first);
        store::<S>(self.bias, input, first, [simd.add_f32s(values[0], x), simd.add_f32s(values[1], y)]);
    }
}
