// gather: rows of a table.
// in   0 params  1 table (any, width)  2 indices (rows)    out 3 y (rows, width)
// grid folded ceil(n / WG), n = rows * width   twin src/backend/cpu/ops.rs
override WG: u32 = 256u;

struct Params {
    n: u32,
    width: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> table: array<f32>;
@group(0) @binding(2) var<storage, read> indices: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (group.x + group.y * groups.x) * WG + lane;
    if i < params.n {
        y[i] = table[indices[i / params.width] * params.width + i % params.width];
    }
}
