// mol_gate_gradient: from the derivatives with respect to scores, and those of the mutual information loss with respect to
// probabilities, to those with respect to the gate. A thread computes one pair.
// in   0 params  1 logits (L, pairs)  2 dy (P, slots)  3 sums (2, L): of probabilities over the mi_pairs pairs of that loss
// out  4 gate (L, pairs): the gate; then derivatives with respect to it
//      5 probabilities (2, L, pairs): see mol_gate.wgsl; then, in the first half, times the derivative of the score
// grid folded ceil(n / WORKGROUP), n = pairs   needs lib/element_wise.wgsl, lib/activation.wgsl, lib/slope.wgsl, lib/pairs.wgsl,
// lib/mol_gate.wgsl, lib/mutual_information.wgsl   twin src/backend/cpu/loss/gate.rs
// loops over logits end at L
struct Params {
    n: u32,
    pairs: u32,
    logits: u32,           // L
    combination: u32,      // lib/mol_gate.wgsl
    first_position: u32,
    per_position: u32,
    slots: u32,
    first_slot: u32,
    has_dropout: u32,
    mi_pairs: f32,
    mi_scale: f32,         // the weight of that loss / mi_pairs; 0 without it
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read> sums: array<f32>;
@group(0) @binding(4) var<storage, read_write> gate: array<f32>;
@group(0) @binding(5) var<storage, read_write> probabilities: array<f32>;

// With respect to probability l.
fn of_probability(i: u32, l: u32, of_score: f32) -> f32 {
    let through_score = of_score * logits[i];
    if params.mi_scale == 0.0 { return through_score; }
    let mean = sums[l] / params.mi_pairs;
    return through_score + (information_slope(mean) - information_slope(probabilities[i])) * params.mi_scale;
}

// With respect to what the softmax is of.
fn of_weight(i: u32, l: u32, of_score: f32, mean: f32) -> f32 {
    let reference = select(i, params.logits * params.pairs + i, params.has_dropout != 0u);
    return probabilities[i] * of_probability(i, l, of_score) - probabilities[reference] * mean;
}

fn element(pair: u32) {
    let of_score = dy[slot_of(pair)];
    var mean = 0.0;
    for (var l = 0u; l < params.logits; l++) {
        let i = l * params.pairs + pair;
        mean += probabilities[i] * of_probability(i, l, of_score);
    }
    var norm = Norm(0.0, 1.0);
    var slopes: vec2f;   // of the normalised gate: their mean, and that of their products with it
    if params.combination == NORMALISED_SILU {
        norm = norm_of(pair);
        for (var l = 0u; l < params.logits; l++) {
            let i = l * params.pairs + pair;
            let normed = (gate[i] - norm.mean) / norm.deviation;
            let share = sigmoid(normed);
            slopes += of_weight(i, l, of_score, mean) * gate[i] * share * (1.0 - share) * vec2f(1.0, normed);
        }
        slopes /= f32(params.logits);
    }
    for (var l = 0u; l < params.logits; l++) {
        let i = l * params.pairs + pair;
        var of_gate = of_weight(i, l, of_score, mean);
        if params.combination == SILU {
            of_gate *= silu_slope(gate[i]);
        } else if params.combination == NORMALISED_SILU {
            let normed = (gate[i] - norm.mean) / norm.deviation;
            let share = sigmoid(normed);
            let of_normed = of_gate * gate[i] * share * (1.0 - share);
            of_gate = of_gate * share + (of_normed - slopes.x - normed * slopes.y) / norm.deviation;
        }
        gate[i] = of_gate;
        probabilities[i] *= of_score;
    }
}
