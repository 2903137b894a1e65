// norm_gradient: the gradient of ops/norm.wgsl: of x, and if AFFINE, of the weight, row by row. One workgroup per row.
// in   0 params  1 x (rows, width)  2 weight (width)  3 dy (rows, width)
// out  4 dx (rows, width)  5 dw (rows, width): to be summed over rows
// grid folded rows   needs lib/reduction.wgsl   twin src/backend/cpu/ops/gradient/norm.rs
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
@group(0) @binding(3) var<storage, read> dy: array<f32>;
@group(0) @binding(4) var<storage, read_write> dx: array<f32>;
@group(0) @binding(5) var<storage, read_write> dw: array<f32>;

// The gradient of the normalised number in a column.
fn of_normalised(i: u32, column: u32) -> f32 {
    if AFFINE {
        return dy[i] * weight[column];
    }
    return dy[i];
}

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
    let width = f32(params.width);
    var mean = 0.0;
    var mean_dy = 0.0;
    if CENTRED {
        var sums: vec2f;
        for (var column = thread; column < params.width; column += WORKGROUP) {
            sums += vec2f(x[first + column], of_normalised(first + column, column));
        }
        mean = sum_of_threads(thread, sums.x) / width;
        mean_dy = sum_of_threads(thread, sums.y) / width;
    }
    var products: vec2f;
    for (var column = thread; column < params.width; column += WORKGROUP) {
        let centred = x[first + column] - mean;
        products += vec2f(centred, of_normalised(first + column, column)) * centred;
    }
    products = vec2f(sum_of_threads(thread, products.x), sum_of_threads(thread, products.y));
    // What is normalised is multiplied by scale, whose own slope along the row adds to the gradient.
    var scale: f32;
    var slope: f32;
    if !CENTRED {
        let norm = sqrt(products.x);
        scale = 1.0 / max(norm, params.eps);
        slope = select(0.0, scale * scale, norm > params.eps);
    } else if params.unbiased == 0u {
        scale = 1.0 / sqrt(products.x / width + params.eps);
        slope = scale * scale / width;
    } else {
        let deviation = sqrt(products.x / (width - 1.0));
        scale = 1.0 / (deviation + params.eps);
        // A row of equal numbers has no slope.
        slope = select(0.0, scale / (max(deviation, 1e-30) * (width - 1.0)), deviation > 0.0);
    }
    slope *= products.y;
    for (var column = thread; column < params.width; column += WORKGROUP) {
        let centred = x[first + column] - mean;
        dx[first + column] = scale * (of_normalised(first + column, column) - mean_dy - centred * slope);
        if AFFINE {
            dw[first + column] = dy[first + column] * centred * scale;
        }
    }
}
