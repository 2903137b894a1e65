// concat: one part of several that are put side by side; one dispatch per part.
// in   0 params  1 x (rows, width)    out 2 y (rows, total), columns offset .. offset + width of it
// grid folded ceil(n / WG), n = rows * width   twin src/backend/cpu/ops.rs
override WG: u32 = 256u;

struct Params {
    n: u32,
    width: u32,
    total: u32,
    offset: u32,
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
        y[i / params.width * params.total + params.offset + i % params.width] = x[i];
    }
}
