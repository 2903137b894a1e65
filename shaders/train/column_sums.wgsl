// column_sums: the sums of the columns of each `chunk` rows, in order of rows.
// in   0 params  1 x (rows, width)    out 2 y (ceil(rows / chunk), width)
// grid folded ceil(n / WORKGROUP), n = ceil(rows / chunk) * width   needs lib/element_wise.wgsl
// twin src/backend/cpu/ops/gradient/linear.rs
// the loop over rows ends after chunk turns
struct Params {
    n: u32,
    rows: u32,
    width: u32,
    chunk: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

fn element(i: u32) {
    let first = i / params.width * params.chunk;
    let end = min(first + params.chunk, params.rows);
    let column = i % params.width;
    var sum = 0.0;
    for (var row = first; row < end; row++) { sum += x[row * params.width + column]; }
    y[i] = sum;
}
