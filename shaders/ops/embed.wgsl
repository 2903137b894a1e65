// embed: scaled item embeddings plus position embeddings, positions counted from each sequence's first row.
// in   0 params  1 items (any, width)  2 positions (any, width)  3 ids (rows)  4 start (rows)    out 5 y (rows, width)
// grid folded ceil(n / WG), n = rows * width   twin src/backend/cpu/ops.rs
override WG: u32 = 256u;

struct Params {
    n: u32,
    width: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> items: array<f32>;
@group(0) @binding(2) var<storage, read> positions: array<f32>;
@group(0) @binding(3) var<storage, read> ids: array<u32>;
@group(0) @binding(4) var<storage, read> start: array<u32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (group.x + group.y * groups.x) * WG + lane;
    if i < params.n {
        let row = i / params.width;
        let column = i % params.width;
        let position = (row - start[row]) * params.width + column;
        y[i] = params.scale * items[ids[row] * params.width + column] + positions[position];
    }
}
