// gather: rows of a table.
// in   0 params  1 table (any, width)  2 indices (rows): rows of the table    out 3 y (rows, width)
// grid folded ceil(n / WORKGROUP), n = rows * width   needs lib/element_wise.wgsl   twin src/backend/cpu/ops/mod.rs
struct Params {
    n: u32,
    width: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> table: array<f32>;
@group(0) @binding(2) var<storage, read> indices: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

fn element(i: u32) {
    y[i] = table[indices[i / params.width] * params.width + i % params.width];
}
