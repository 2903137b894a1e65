//! The sampled softmax of Mixture-of-Logits, as dispatches.
//!
//! The positives come first, since the mutual information loss needs the mean of their gates. Then the negatives, in rounds of
//! positions: scores, softmax, gradients. At last the positives again, for their gradients. Arrays of a round are (.., pairs), so that
//! threads of neighbouring pairs read neighbouring numbers; what is kept beyond it has the size of scores.

use std::ops::Range;

use super::kernels::*;
use super::mutual_information::{self, MutualInformation};
use super::ops::{GpuTrainingOps, len};
use super::pairs::{ComponentSums, PairLists, PairSums, Softmax};
use super::product::{CHUNK, Matrix};
use crate::Result;
use crate::backend::gpu::device::Buffer;
use crate::backend::gpu::kernels::activation_code;
use crate::backend::loss::{GateDropout, MolLossValue};
use crate::backend::{MolArrays, MolLossSettings, MolSide};
use crate::config::{GatingCombination, MolConfig};
use crate::model::CrossGate;
use crate::ops::{Activation, Linear};
use crate::random::Dropout;

/// See [`TrainingOps::mol_loss`](crate::backend::TrainingOps::mol_loss).
pub fn mol_loss(
    ops: &mut GpuTrainingOps,
    arrays: &MolArrays<Buffer>,
    settings: &MolLossSettings,
) -> Result<(MolLossValue, MolArrays<Buffer>)> {
    let gradients = arrays.map(&mut |array| ops.cleared(len(array)));
    if settings.softmax.positives.is_empty() {
        return Ok((MolLossValue { loss: 0.0, mi_loss: 0.0 }, gradients));
    }
    let softmax = Softmax::new(ops, settings.softmax);
    let n_positions = softmax.positions;
    let n_items =
        len(&arrays.items.0) / (settings.config.item_dot_product_groups * settings.config.dot_product_dimension);
    let loss = MolLoss {
        config: settings.config,
        arrays,
        gradients: &gradients,
        n_items,
        round: ops.round,
        one: ops.recorder.upload(&[1.0f32; 4]),
        softmax,
    };
    let positives = Pairs {
        queries: &arrays.queries,
        of_queries: &gradients.queries,
        items: settings.softmax.positives,
        first_slot: 0,
        per_position: 1,
        dropout: settings.positive_dropout,
    };
    let negatives = Pairs {
        queries: arrays.negative_queries.as_ref().unwrap_or(&arrays.queries),
        of_queries: gradients.negative_queries.as_ref().unwrap_or(&gradients.queries),
        items: settings.softmax.negatives,
        first_slot: 1,
        per_position: loss.softmax.slots - 1,
        dropout: settings.negative_dropout,
    };

    let mut information = MutualInformation::new(ops, loss.n_logits());
    for positions in loss.rounds(&positives) {
        let round = loss.forward(ops, &positives, positions);
        information.add(ops, &round.probabilities, round.n_pairs);
        ops.recorder.submit()?;
    }
    let mut of_cross = gradients.cross.clone();
    for positions in loss.rounds(&negatives) {
        let (first, n) = (positions.start, positions.len());
        let round = loss.forward(ops, &negatives, positions);
        loss.softmax.dispatch(ops, first, n);
        loss.back(ops, &negatives, round, None, &mut of_cross);
        ops.recorder.submit()?;
    }
    let information_and_scale = (information.sums(), settings.mi_weight / n_positions as f32);
    for positions in loss.rounds(&positives) {
        let round = loss.forward(ops, &positives, positions);
        loss.back(ops, &positives, round, Some(information_and_scale), &mut of_cross);
        ops.recorder.submit()?;
    }
    let (main, parts) = loss.softmax.read(ops, information.parts())?;
    let mi_loss = mutual_information::loss(&parts.concat(), loss.n_logits(), n_positions);
    Ok((MolLossValue { loss: main, mi_loss }, MolArrays { cross: of_cross, ..gradients }))
}

/// What all rounds share.
struct MolLoss<'a> {
    config: &'a MolConfig,
    arrays: &'a MolArrays<Buffer>,
    /// Zeros first.
    gradients: &'a MolArrays<Buffer>,
    n_items: usize,
    round: usize,
    /// A 1.
    one: Buffer,
    softmax: Softmax<'a>,
}

/// The pairs of positives, or of negatives.
struct Pairs<'a> {
    queries: &'a MolSide<Buffer>,
    of_queries: &'a MolSide<Buffer>,
    /// (P, per_position)
    items: &'a [u32],
    per_position: usize,
    /// Of a position in a [`Softmax`].
    first_slot: usize,
    dropout: GateDropout,
}

/// What the way back needs of the way there.
struct Round {
    positions: Range<usize>,
    n_pairs: usize,
    /// (L, pairs)
    logits: Buffer,
    /// (L, pairs): what dropout has left of them for the cross part.
    seen: Buffer,
    /// (H, pairs): hidden units before and after their activation.
    hidden: Option<[Buffer; 2]>,
    /// (L, pairs): the sum of the gate's parts.
    gate: Buffer,
    /// See mol_gate.wgsl.
    probabilities: Buffer,
}

/// What is known of a dropout in WGSL.
struct Mask {
    has_dropout: u32,
    threshold: u32,
    scale: f32,
    key: [u32; 2],
}

impl Mask {
    fn of(dropout: Dropout) -> Mask {
        let has_dropout = (dropout.rate() > 0.0).into();
        Mask { has_dropout, threshold: dropout.threshold(), scale: dropout.scale(), key: dropout.key() }
    }
}

fn combination_code(combination: GatingCombination) -> u32 {
    match combination {
        GatingCombination::GluSilu => 0,
        GatingCombination::GluSiluLn => 1,
        GatingCombination::None => 2,
    }
}

impl MolLoss<'_> {
    fn n_logits(&self) -> usize {
        self.config.n_logits()
    }

    /// Positions whose pairs are computed together.
    fn rounds(&self, pairs: &Pairs) -> impl Iterator<Item = Range<usize>> + use<> {
        let n_hidden = self.arrays.cross.hidden.as_ref().map_or(0, |layer| layer.n_out);
        let numbers = pairs.per_position * (8 * self.n_logits() + 4 * n_hidden);
        let (n, most) = (self.softmax.positions, (self.round / numbers).max(1));
        (0..n).step_by(most).map(move |first| first..n.min(first + most))
    }

    /// From logits to scores.
    fn forward(&self, ops: &mut GpuTrainingOps, pairs: &Pairs, positions: Range<usize>) -> Round {
        let (n_logits, n_pairs) = (self.n_logits(), positions.len() * pairs.per_position);
        let (MolArrays { items, cross, .. }, none) = (self.arrays, ops.placeholder());
        let mask = Mask::of(pairs.dropout.logits);
        let logits = ops.result(n_logits * n_pairs);
        let dropped_out = ops.result(if mask.has_dropout != 0 { n_logits * n_pairs } else { 4 });
        let n = self.config.query_dot_product_groups.div_ceil(4) * n_pairs;
        let params = MolLogitsParams {
            n: n as u32,
            pairs: n_pairs as u32,
            p_q: self.config.query_dot_product_groups as u32,
            p_x: self.config.item_dot_product_groups as u32,
            d: self.config.dot_product_dimension as u32,
            inverse_temperature: 1.0 / self.config.temperature,
            first_position: positions.start as u32,
            per_position: pairs.per_position as u32,
            slots: self.softmax.slots as u32,
            first_slot: pairs.first_slot as u32,
            has_dropout: mask.has_dropout,
            threshold: mask.threshold,
            scale: mask.scale,
            key_0: mask.key[0],
            key_1: mask.key[1],
        };
        let buffers = [&pairs.queries.0, &items.0, &self.softmax.indices, &logits, &dropped_out];
        ops.element_wise(&MOL_LOGITS, &params, &buffers, n);
        let seen = if mask.has_dropout != 0 { dropped_out } else { logits.clone() };

        let hidden = cross.hidden.as_ref().map(|layer| {
            let before = ops.weighted(layer, &seen, n_pairs);
            let n = layer.n_out * n_pairs;
            let units = ops.result(n);
            let has_bias = layer.bias.is_some().into();
            let params = HiddenUnitsParams { n: n as u32, pairs: n_pairs as u32, has_bias };
            let bias = layer.bias.as_ref().unwrap_or(&none);
            ops.element_wise(&HIDDEN_UNITS, &params, &[bias, &before, &units], n);
            [before, units]
        });
        let inputs = hidden.as_ref().map_or(&seen, |[_, units]| units);
        let mut gate = ops.weighted(&cross.output, inputs, n_pairs);
        if let Some(weight) = &cross.linear {
            let layer = Linear { weight: weight.clone(), bias: None, n_in: n_logits, n_out: n_logits };
            let part = ops.weighted(&layer, &seen, n_pairs);
            ops.add_to(&mut gate, part);
        }
        let mask = Mask::of(pairs.dropout.probabilities);
        let probabilities = ops.result(n_logits * n_pairs * if mask.has_dropout != 0 { 2 } else { 1 });
        let (query_gate, item_gate, bias) = (&pairs.queries.1, &items.1, &cross.output.bias);
        let params = MolGateParams {
            n: n_pairs as u32,
            pairs: n_pairs as u32,
            logits: n_logits as u32,
            combination: combination_code(self.config.gating_combination),
            has_query_gate: query_gate.is_some().into(),
            has_item_gate: item_gate.is_some().into(),
            has_bias: bias.is_some().into(),
            first_position: positions.start as u32,
            per_position: pairs.per_position as u32,
            slots: self.softmax.slots as u32,
            first_slot: pairs.first_slot as u32,
            has_dropout: mask.has_dropout,
            threshold: mask.threshold,
            scale: mask.scale,
            key_0: mask.key[0],
            key_1: mask.key[1],
        };
        let [query_gate, item_gate, bias] = [query_gate, item_gate, bias].map(|part| part.as_ref().unwrap_or(&none));
        let (indices, scores) = (&self.softmax.indices, &self.softmax.similarities);
        let buffers = [&logits, query_gate, item_gate, bias, indices, &gate, &probabilities, scores];
        ops.element_wise(&MOL_GATE, &params, &buffers, n_pairs);
        Round { positions, n_pairs, logits, seen, hidden, gate, probabilities }
    }

    /// From the derivatives of the softmax, and of the mutual information loss by the sums of its probabilities, to gradients.
    fn back(
        &self,
        ops: &mut GpuTrainingOps,
        pairs: &Pairs,
        round: Round,
        information: Option<(&Buffer, f32)>,
        of_cross: &mut CrossGate<Buffer>,
    ) {
        let (n_logits, n_pairs) = (self.n_logits(), round.n_pairs);
        let n = n_logits * n_pairs;
        let none = ops.placeholder();
        let (sums, mi_scale) = information.unwrap_or((&none, 0.0));
        let params = MolGateGradientParams {
            n: n_pairs as u32,
            pairs: n_pairs as u32,
            logits: n_logits as u32,
            combination: combination_code(self.config.gating_combination),
            first_position: round.positions.start as u32,
            per_position: pairs.per_position as u32,
            slots: self.softmax.slots as u32,
            first_slot: pairs.first_slot as u32,
            has_dropout: Mask::of(pairs.dropout.probabilities).has_dropout,
            mi_pairs: self.softmax.positions as f32,
            mi_scale,
        };
        let buffers = [&round.logits, &self.softmax.dy, sums, &round.gate, &round.probabilities];
        ops.element_wise(&MOL_GATE_GRADIENT, &params, &buffers, n_pairs);
        let of_gate = &round.gate;
        let of_logits = self.cross_back(ops, &round, of_cross);
        let mask = Mask::of(pairs.dropout.logits);
        let params = MolLogitsGradientParams {
            n: n as u32,
            pairs: n_pairs as u32,
            logits: n_logits as u32,
            first_pair: (round.positions.start * pairs.per_position) as u32,
            inverse_temperature: 1.0 / self.config.temperature,
            has_dropout: mask.has_dropout,
            threshold: mask.threshold,
            scale: mask.scale,
            key_0: mask.key[0],
            key_1: mask.key[1],
        };
        let mixture = round.probabilities.slice(0..4 * n as u64);
        ops.element_wise(&MOL_LOGITS_GRADIENT, &params, &[&mixture, &of_logits], n);
        self.sides(ops, pairs, &round.positions, [of_gate, &of_logits]);
    }

    /// From the derivatives with respect to the gate to those with respect to the logits that its cross part saw; adds the
    /// gradients of the weights.
    fn cross_back(&self, ops: &mut GpuTrainingOps, round: &Round, of_cross: &mut CrossGate<Buffer>) -> Buffer {
        let (cross, n_pairs) = (&self.arrays.cross, round.n_pairs);
        let (n_logits, of_gate, seen) = (self.n_logits(), &round.gate, &round.seen);
        let mut of_logits = match (&cross.hidden, &round.hidden, &mut of_cross.hidden) {
            (Some(layer), Some([before, units]), Some(of_layer)) => {
                self.layer_back(ops, (units, of_gate, n_pairs), &mut of_cross.output);
                let of_units = ops.weighted_back(&cross.output, of_gate, n_pairs);
                let n = layer.n_out * n_pairs;
                let of_before = ops.result(n);
                let params = ActivationGradientParams { n: n as u32, activation: activation_code(Activation::Silu) };
                ops.element_wise(&ACTIVATION_GRADIENT, &params, &[before, &of_units, &of_before], n);
                self.layer_back(ops, (seen, &of_before, n_pairs), of_layer);
                ops.weighted_back(layer, &of_before, n_pairs)
            }
            _ => {
                self.layer_back(ops, (seen, of_gate, n_pairs), &mut of_cross.output);
                ops.weighted_back(&cross.output, of_gate, n_pairs)
            }
        };
        if let (Some(weight), Some(of_weight)) = (&cross.linear, &mut of_cross.linear) {
            let layer =
                |weight: &Buffer| Linear { weight: weight.clone(), bias: None, n_in: n_logits, n_out: n_logits };
            let mut of_layer = layer(of_weight);
            self.layer_back(ops, (seen, of_gate, n_pairs), &mut of_layer);
            *of_weight = of_layer.weight;
            let part = ops.weighted_back(&layer(weight), of_gate, n_pairs);
            ops.add_to(&mut of_logits, part);
        }
        of_logits
    }

    /// Adds the gradients of the weights of a layer of x (n_in, pairs), from those of its results (n_out, pairs).
    fn layer_back(&self, ops: &mut GpuTrainingOps, (x, dy, n): (&Buffer, &Buffer, usize), layer: &mut Linear<Buffer>) {
        let part = ops.product((layer.n_in, n, layer.n_out), Matrix(x, n, 1), Matrix(dy, 1, n), CHUNK);
        ops.add_to(&mut layer.weight, part);
        if let Some(bias) = &mut layer.bias {
            let part = ops.product((layer.n_out, n, 1), Matrix(dy, n, 1), Matrix(&self.one, 0, 0), CHUNK);
            ops.add_to(bias, part);
        }
    }

    /// Adds the gradients of queries and items of some pairs, from those of the gate and of the products of components.
    fn sides(
        &self,
        ops: &mut GpuTrainingOps,
        pairs: &Pairs,
        positions: &Range<usize>,
        [of_gate, of_products]: [&Buffer; 2],
    ) {
        let MolConfig { query_dot_product_groups: p_q, item_dot_product_groups: p_x, dot_product_dimension: d, .. } =
            *self.config;
        let (per_position, first) = (pairs.per_position, positions.start);
        let here = &pairs.items[first * per_position..positions.end * per_position];
        let by_position = PairLists::of_positions(ops, here, per_position);
        let by_item = PairLists::of_items(ops, here, per_position, self.n_items);
        let (items, of_items) = (&self.arrays.items, &self.gradients.items);
        let products = ComponentSums {
            derivatives: of_products,
            plane: here.len(),
            own: (p_q, p_x),
            others: (p_x, 1),
            d,
            x: (&items.0, 0),
        };
        products.add_to(ops, &by_position, (&pairs.of_queries.0, first));
        let products = ComponentSums { own: (p_x, 1), others: (p_q, p_x), x: (&pairs.queries.0, first), ..products };
        products.add_to(ops, &by_item, (&of_items.0, 0));

        // In a product of one-sided parts, the derivative of one is the other.
        let is_product = self.config.gating_combination != GatingCombination::None;
        let other = |part: &Option<Buffer>| part.clone().filter(|_| is_product);
        let gates = PairSums { derivatives: of_gate, plane: here.len(), width: p_q * p_x, inner: 1, x: None };
        if let Some(of_queries) = &pairs.of_queries.1 {
            let factor = other(&items.1);
            let sums = PairSums { x: factor.as_ref().map(|gate| (gate, 0)), ..gates };
            sums.add_to(ops, &by_position, (of_queries, first));
        }
        if let Some(of_items) = &of_items.1 {
            let factor = other(&pairs.queries.1);
            let sums = PairSums { x: factor.as_ref().map(|gate| (gate, first)), ..gates };
            sums.add_to(ops, &by_item, (of_items, 0));
        }
    }
}
