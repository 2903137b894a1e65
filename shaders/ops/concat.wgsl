// concat: one part of several that are put side by side; one dispatch per part.
// in   0 params  1 x (rows, width)    out 2 y (rows, total): columns offset .. offset + width of it
// grid folded ceil(n / WORKGROUP), n = rows * width   needs lib/element_wise.wgsl   twin src/backend/cpu/ops/mod.rs
struct Params {
    n: u32,
    width: u32,
    total: u32,
    offset: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

fn element(i: u32) {
    y[i / params.width * params.total + params.offset + i % params.width] = x[i];
}
