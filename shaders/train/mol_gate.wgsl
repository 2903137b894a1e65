// mol_gate: from the cross part of the gate to its probabilities and the score of a pair. A thread computes one pair.
// in   0 params  1 logits (L, pairs)  2 query_gate (P, L)  3 item_gate (M, L)  4 bias (L)  5 indices (P, slots): items
// out  6 gate (L, pairs): products with the weights of the cross part; then the sum of all parts
//      7 probabilities (2, L, pairs): after dropout; and, if has_dropout, the same, but where too little was left, those before it
//      8 scores (P, slots)
// grid folded ceil(n / WORKGROUP), n = pairs   needs lib/element_wise.wgsl, lib/activation.wgsl, lib/dropout.wgsl, lib/pairs.wgsl,
// lib/mol_gate.wgsl   twin src/backend/cpu/loss/gate.rs
// loops over logits end at L
struct Params {
    n: u32,
    pairs: u32,
    logits: u32,           // L
    combination: u32,      // lib/mol_gate.wgsl
    has_query_gate: u32,
    has_item_gate: u32,
    has_bias: u32,
    first_position: u32,
    per_position: u32,
    slots: u32,
    first_slot: u32,
    has_dropout: u32,
    threshold: u32,
    scale: f32,
    key_0: u32,
    key_1: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> query_gate: array<f32>;
@group(0) @binding(3) var<storage, read> item_gate: array<f32>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read> indices: array<u32>;
@group(0) @binding(6) var<storage, read_write> gate: array<f32>;
@group(0) @binding(7) var<storage, read_write> probabilities: array<f32>;
@group(0) @binding(8) var<storage, read_write> scores: array<f32>;

// Least sum that the probabilities that are left by dropout are divided by.
const LEAST_SUM: f32 = 1e-6;

// The sum of the gate's parts; in a product of the one-sided parts, or a sum, a missing one is neutral.
fn joined(cross: f32, query: u32, item: u32) -> f32 {
    if params.has_query_gate != 0u && params.has_item_gate != 0u {
        let q = query_gate[query];
        let x = item_gate[item];
        return select(cross + q + x, q * x + cross, params.combination <= NORMALISED_SILU);
    }
    if params.has_query_gate != 0u { return cross + query_gate[query]; }
    if params.has_item_gate != 0u { return cross + item_gate[item]; }
    return cross;
}

fn element(pair: u32) {
    let query = position_of(pair) * params.logits;
    let item = indices[slot_of(pair)] * params.logits;
    for (var l = 0u; l < params.logits; l++) {
        let i = l * params.pairs + pair;
        var cross = gate[i];
        if params.has_bias != 0u { cross += bias[l]; }
        gate[i] = joined(cross, query + l, item + l);
    }
    var norm = Norm(0.0, 1.0);
    if params.combination == NORMALISED_SILU { norm = norm_of(pair); }
    var greatest = -1e38;
    for (var l = 0u; l < params.logits; l++) {
        let g = gate[l * params.pairs + pair];
        let weight = select(g, g * sigmoid((g - norm.mean) / norm.deviation), params.combination <= NORMALISED_SILU);
        probabilities[l * params.pairs + pair] = weight;
        greatest = max(greatest, weight);
    }
    var total = 0.0;
    for (var l = 0u; l < params.logits; l++) {
        let i = l * params.pairs + pair;
        let e = exp(probabilities[i] - greatest);
        probabilities[i] = e;
        total += e;
    }
    let references = params.logits * params.pairs;
    let dropout = Dropout(vec2u(params.key_0, params.key_1), params.threshold, params.scale);
    var left = 0.0;
    if params.has_dropout != 0u {
        for (var l = 0u; l < params.logits; l++) {
            let i = l * params.pairs + pair;
            let probability = probabilities[i] / total;
            let after = probability * kept(dropout, number_of(pair) * params.logits + l);
            probabilities[references + i] = probability;
            probabilities[i] = after;
            left += after;
        }
        total = max(left, LEAST_SUM);
    }
    var score = 0.0;
    for (var l = 0u; l < params.logits; l++) {
        let i = l * params.pairs + pair;
        let probability = probabilities[i] / total;
        probabilities[i] = probability;
        if params.has_dropout != 0u && left > LEAST_SUM { probabilities[references + i] = probability; }
        score += probability * logits[i];
    }
    scores[slot_of(pair)] = score;
}
