// l2_norm: x / max(||x||, eps) over each row. One workgroup per row, sums in a fixed order.
// in   0 params  1 x (rows, width)    out 2 y (rows, width)
// grid folded rows   needs WG a power of two   twin src/backend/cpu/ops.rs
override WG: u32 = 64u;

struct Params {
    rows: u32,
    width: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

var<workgroup> scratch: array<f32, WG>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group.x + group.y * groups.x;
    if row >= params.rows {
        return;
    }
    let first = row * params.width;
    var sum = 0.0;
    for (var column = lane; column < params.width; column += WG) {
        sum += x[first + column] * x[first + column];
    }
    scratch[lane] = sum;
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half /= 2u) {
        if lane < half {
            scratch[lane] += scratch[lane + half];
        }
        workgroupBarrier();
    }
    let norm = max(sqrt(scratch[0]), params.eps);
    for (var column = lane; column < params.width; column += WG) {
        y[first + column] = x[first + column] / norm;
    }
}
