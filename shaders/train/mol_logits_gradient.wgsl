// mol_logits_gradient: from derivatives with respect to logits, through the mixture and through the cross part of the gate, to those
// with respect to inner products of components.
// in   0 params  1 mixture (L, pairs)    out 2 dy (L, pairs): with respect to what the cross part saw; then the result
// grid folded ceil(n / WORKGROUP), n = L * pairs   needs lib/element_wise.wgsl, lib/dropout.wgsl   twin src/backend/cpu/loss/tile.rs
struct Params {
    n: u32,
    pairs: u32,
    logits: u32,              // L
    first_pair: u32,          // by which dropout counts
    inverse_temperature: f32,
    has_dropout: u32,
    threshold: u32,
    scale: f32,
    key_0: u32,
    key_1: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> mixture: array<f32>;
@group(0) @binding(2) var<storage, read_write> dy: array<f32>;

fn element(i: u32) {
    var through_gate = dy[i];
    if params.has_dropout != 0u {
        let dropout = Dropout(vec2u(params.key_0, params.key_1), params.threshold, params.scale);
        through_gate *= kept(dropout, (params.first_pair + i % params.pairs) * params.logits + i / params.pairs);
    }
    dy[i] = (mixture[i] + through_gate) * params.inverse_temperature;
}
