// pair_products: the inner products of each position with its positive and its negatives.
// in   0 params  1 queries (P, dim)  2 items (M, dim)  3 indices (P, 1 + R): the positive, then negatives    out 4 y (P, 1 + R)
// grid folded ceil(n / WORKGROUP), n = P * (1 + R)   needs lib/element_wise.wgsl   twin src/backend/cpu/loss/dot.rs
// the loop over columns ends at dim
struct Params {
    n: u32,
    dim: u32,
    per_position: u32,   // 1 + R
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> queries: array<f32>;
@group(0) @binding(2) var<storage, read> items: array<f32>;
@group(0) @binding(3) var<storage, read> indices: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

fn element(i: u32) {
    let query = i / params.per_position * params.dim;
    let item = indices[i] * params.dim;
    var sum = 0.0;
    for (var c = 0u; c < params.dim; c++) { sum += queries[query + c] * items[item + c]; }
    y[i] = sum;
}
