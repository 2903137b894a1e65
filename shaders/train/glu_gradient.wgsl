// glu_gradient: the gradient of a gated linear unit.
// in   0 params  1 x (rows, 2 * hidden)  2 dy (rows, hidden)    out 3 dx (rows, 2 * hidden)
// grid folded ceil(n / WORKGROUP), n = rows * hidden   needs lib/element_wise.wgsl, lib/activation.wgsl, lib/slope.wgsl
// twin src/backend/cpu/ops/gradient/mod.rs
struct Params {
    n: u32,
    hidden: u32,
    activation: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;

fn element(i: u32) {
    let first = i / params.hidden * 2u * params.hidden + i % params.hidden;
    let gate = first + params.hidden;
    dx[first] = dy[i] * x[gate] * slope(params.activation, x[first]);
    dx[gate] = dy[i] * activate(params.activation, x[first]);
}
