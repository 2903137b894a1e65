// mol_logits: the logits of components of pairs, <f_n, g_m> / temperature, and what dropout leaves of them for the cross part of the gate.
// in   0 params  1 queries (P, p_q * d)  2 items (M, p_x * d)  3 indices (P, slots): items
// out  4 y (p_q * p_x, pairs)  5 seen, the same after dropout, if has_dropout
// grid folded ceil(n / WORKGROUP), n = p_q * pairs   needs lib/element_wise.wgsl, lib/dropout.wgsl, lib/pairs.wgsl
// twin src/backend/cpu/loss/pairs.rs
// loops over components end at p_x or after 4 turns, that over columns at d
struct Params {
    n: u32,
    pairs: u32,
    p_q: u32,
    p_x: u32,
    d: u32,
    inverse_temperature: f32,
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
@group(0) @binding(1) var<storage, read> queries: array<f32>;
@group(0) @binding(2) var<storage, read> items: array<f32>;
@group(0) @binding(3) var<storage, read> indices: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read_write> seen: array<f32>;

fn element(i: u32) {
    let pair = i % params.pairs;
    let component = i / params.pairs;
    let query = (position_of(pair) * params.p_q + component) * params.d;
    let item = indices[slot_of(pair)] * params.p_x;
    let dropout = Dropout(vec2u(params.key_0, params.key_1), params.threshold, params.scale);
    for (var first = 0u; first < params.p_x; first += 4u) {
        // Four of the item's components; the last one for those that do not exist.
        let four = (item + min(vec4u(first) + vec4u(0u, 1u, 2u, 3u), vec4u(params.p_x - 1u))) * params.d;
        var sums: vec4f;
        for (var c = 0u; c < params.d; c++) {
            sums += queries[query + c] * vec4f(items[four.x + c], items[four.y + c], items[four.z + c], items[four.w + c]);
        }
        for (var m = 0u; m < min(4u, params.p_x - first); m++) {
            let logit = component * params.p_x + first + m;
            let value = sums[m] * params.inverse_temperature;
            y[logit * params.pairs + pair] = value;
            if params.has_dropout != 0u {
                let number = number_of(pair) * params.p_q * params.p_x + logit;
                seen[logit * params.pairs + pair] = value * kept(dropout, number);
            }
        }
    }
}
