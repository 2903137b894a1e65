// drop_out: dropout of elements, or of `sharing` elements in a row together.
// in   0 params  1 x (n)    out 2 y (n)
// grid folded ceil(n / WORKGROUP)   needs lib/element_wise.wgsl, lib/dropout.wgsl   twin src/random.rs
struct Params {
    n: u32,
    sharing: u32,
    threshold: u32,
    scale: f32,
    key_0: u32,
    key_1: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

fn element(i: u32) {
    let dropout = Dropout(vec2u(params.key_0, params.key_1), params.threshold, params.scale);
    y[i] = x[i] * kept(dropout, i / params.sharing);
}
