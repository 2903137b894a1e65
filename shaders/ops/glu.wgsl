// glu: gated linear unit, activation(first half of a row) * second half.
// in   0 params  1 x (rows, 2 * hidden)    out 2 y (rows, hidden)
// grid folded ceil(n / WORKGROUP), n = rows * hidden   needs lib/element_wise.wgsl, lib/activation.wgsl
// twin src/backend/cpu/ops/mod.rs
struct Params {
    n: u32,
    hidden: u32,
    activation: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

fn element(i: u32) {
    let gate = i / params.hidden * 2u * params.hidden + i % params.hidden;
    y[i] = activate(params.activation, x[gate]) * x[gate + params.hidden];
}
