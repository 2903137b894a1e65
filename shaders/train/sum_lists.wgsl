// sum_lists: each row is the sum of the rows of x in its list, times a scale, in order of the list: the gradient of a table whose rows
// were looked up.
// in   0 params  1 starts (rows + 1): where lists begin  2 list  3 x (any, width)    out 4 y (rows, width)
// grid folded ceil(n / WORKGROUP), n = rows * width   needs lib/element_wise.wgsl   twin src/backend/cpu/ops/gradient/table.rs
// the loop ends with the list
struct Params {
    n: u32,
    width: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> starts: array<u32>;
@group(0) @binding(2) var<storage, read> list: array<u32>;
@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

fn element(i: u32) {
    let row = i / params.width;
    let end = starts[row + 1u];
    var sum = 0.0;
    for (var k = starts[row]; k < end; k++) { sum += params.scale * x[list[k] * params.width + i % params.width]; }
    y[i] = sum;
}
