// squared_rows: the weighted square of the norm of each row, and its gradient, times a scale.
// in   0 params  1 x (n, width)  2 weights (n)    out 3 squares (n)  4 dx (n, width)
// grid folded ceil(n / WORKGROUP)   needs lib/element_wise.wgsl   twin src/backend/cpu/training.rs
// the loop over columns ends at width
struct Params {
    n: u32,
    width: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read_write> squares: array<f32>;
@group(0) @binding(4) var<storage, read_write> dx: array<f32>;

fn element(row: u32) {
    var sum = 0.0;
    for (var i = row * params.width; i < (row + 1u) * params.width; i++) {
        sum += x[i] * x[i];
        dx[i] = 2.0 * params.scale * weights[row] * x[i];
    }
    squares[row] = weights[row] * sum;
}
