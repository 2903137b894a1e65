// hidden_units: SiLU of the hidden layer of the gate's cross part, from products with its weights, to which the bias is added in place.
// in   0 params  1 bias (units)    out 2 before (units, pairs): of the activation  3 y (units, pairs)
// grid folded ceil(n / WORKGROUP), n = units * pairs   needs lib/element_wise.wgsl, lib/activation.wgsl
// twin src/backend/cpu/loss/tile.rs
struct Params {
    n: u32,
    pairs: u32,
    has_bias: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> bias: array<f32>;
@group(0) @binding(2) var<storage, read_write> before: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

fn element(i: u32) {
    var sum = before[i];
    if params.has_bias != 0u { sum += bias[i / params.pairs]; }
    before[i] = sum;
    y[i] = silu(sum);
}
