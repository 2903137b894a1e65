// embed: scaled item embeddings plus position embeddings, positions counted from each sequence's first row.
// in   0 params  1 items (any, width)  2 positions (any, width)  3 ids (rows)  4 start (rows)    out 5 y (rows, width)
// grid folded ceil(n / WORKGROUP), n = rows * width   needs lib/element_wise.wgsl   twin src/backend/cpu/ops/mod.rs
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

fn element(i: u32) {
    let row = i / params.width;
    let column = i % params.width;
    let position = (row - start[row]) * params.width + column;
    y[i] = params.scale * items[ids[row] * params.width + column] + positions[position];
}
