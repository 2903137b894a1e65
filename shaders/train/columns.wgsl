// columns: some columns of an array, as the gradient of a part that was put beside others.
// in   0 params  1 x (rows, total)    out 2 y (rows, width): columns first .. first + width
// grid folded ceil(n / WORKGROUP), n = rows * width   needs lib/element_wise.wgsl   twin src/backend/cpu/ops/gradient/mod.rs
struct Params {
    n: u32,
    width: u32,
    total: u32,
    first: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

fn element(i: u32) {
    y[i] = x[i / params.width * params.total + params.first + i % params.width];
}
