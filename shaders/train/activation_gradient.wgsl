// activation_gradient: the gradient of what an activation is applied to.
// in   0 params  1 x (n): that  2 dy (n)    out 3 dx (n)
// grid folded ceil(n / WORKGROUP)   needs lib/element_wise.wgsl, lib/activation.wgsl, lib/slope.wgsl
// twin src/backend/cpu/ops/activation.rs
struct Params {
    n: u32,
    activation: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;

fn element(i: u32) {
    dx[i] = dy[i] * slope(params.activation, x[i]);
}
