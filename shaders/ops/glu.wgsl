// glu: gated linear unit, activation(first half of a row) * second half.
// in   0 params  1 x (rows, 2 * hidden)    out 2 y (rows, hidden)
// grid folded ceil(n / WG), n = rows * hidden   needs lib/activation.wgsl   twin src/backend/cpu/ops.rs
override WG: u32 = 256u;

struct Params {
    n: u32,
    hidden: u32,
    activation: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (group.x + group.y * groups.x) * WG + lane;
    if i < params.n {
        let gate = i / params.hidden * 2u * params.hidden + i % params.hidden;
        y[i] = activate(params.activation, x[gate]) * x[gate + params.hidden];
    }
}
