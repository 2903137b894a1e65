// norm: over each row x / max(||x||, eps), or, if CENTRED (layer norm), (x - mean) / sqrt(variance + eps), or, if unbiased,
// (x - mean) / (sqrt(sum of squares / (width - 1)) + eps); if AFFINE, that times weight, plus bias. One workgroup per row, sums in a
// fixed order.
// in   0 params  1 x (rows, width)  2 weight (width)  3 bias (width)    out 4 y (rows, width)
// grid folded rows   needs lib/reduction.wgsl   twin src/backend/cpu/ops/mod.rs
// loops over columns end at width
override CENTRED: bool = false;
override AFFINE: bool = false;

struct Params {
    rows: u32,
    width: u32,
    eps: f32,
    unbiased: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) grid: vec3u,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = group.x + group.y * grid.x;
    if row >= params.rows {
        return;
    }
    let first = row * params.width;
    var mean = 0.0;
    if CENTRED {
        var sum = 0.0;
        for (var column = thread; column < params.width; column += WORKGROUP) {
            sum += x[first + column];
        }
        mean = sum_of_threads(thread, sum) / f32(params.width);
    }
    var squares = 0.0;
    for (var column = thread; column < params.width; column += WORKGROUP) {
        let centred = x[first + column] - mean;
        squares += centred * centred;
    }
    squares = sum_of_threads(thread, squares);
    var scale = max(sqrt(squares), params.eps);
    if CENTRED {
        scale = sqrt(squares / f32(params.width) + params.eps);
        if params.unbiased != 0u {
            scale = sqrt(squares / f32(params.width - 1u)) + params.eps;
        }
    }
    for (var column = thread; column < params.width; column += WORKGROUP) {
        var value = (x[first + column] - mean) / scale;
        if AFFINE {
            value = value * weight[column] + bias[column];
        }
        y[first + column] = value;
    }
}
