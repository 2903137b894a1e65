// mol_logits: the logits of components of pairs, <f_n, g_m> / temperature, and what dropout leaves of them for the cross part of the gate.
// A thread computes those of four components of a query and all of an item.
// in   0 params  1 queries (P, p_q * d)  2 items (M, p_x * d)  3 indices (P, slots): items
// out  4 y (p_q * p_x, pairs)  5 seen, the same after dropout, if has_dropout
// grid folded ceil(n / WORKGROUP), n = ceil(p_q / 4) * pairs   needs lib/element_wise.wgsl, lib/dropout.wgsl, lib/pairs.wgsl
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
    let first_n = i / params.pairs * 4u;
    let dropout = Dropout(vec2u(params.key_0, params.key_1), params.threshold, params.scale);
    let four = vec4u(0u, 1u, 2u, 3u);
    // Components that do not exist are read as the last one, and not written.
    let query = (position_of(pair) * params.p_q + min(first_n + four, vec4u(params.p_q - 1u))) * params.d;
    for (var first_m = 0u; first_m < params.p_x; first_m += 4u) {
        let item = (indices[slot_of(pair)] * params.p_x + min(first_m + four, vec4u(params.p_x - 1u))) * params.d;
        var sums: array<vec4f, 4>;
        for (var c = 0u; c < params.d; c++) {
            let f = vec4f(queries[query.x + c], queries[query.y + c], queries[query.z + c], queries[query.w + c]);
            let g = vec4f(items[item.x + c], items[item.y + c], items[item.z + c], items[item.w + c]);
            for (var n = 0u; n < 4u; n++) { sums[n] += f[n] * g; }
        }
        for (var n = 0u; n < 4u; n++) {
            for (var m = 0u; m < 4u; m++) {
                if first_n + n < params.p_q && first_m + m < params.p_x {
                    let logit = (first_n + n) * params.p_x + first_m + m;
                    let value = sums[n][m] * params.inverse_temperature;
                    y[logit * params.pairs + pair] = value;
                    if params.has_dropout != 0u {
                        let number = number_of(pair) * params.p_q * params.p_x + logit;
                        seen[logit * params.pairs + pair] = value * kept(dropout, number);
                    }
                }
            }
        }
    }
}
