// add: the sum of two arrays.
// in   0 params  1 a (n)  2 b (n)    out 3 y (n)
// grid folded ceil(n / WORKGROUP)   needs lib/element_wise.wgsl   twin src/backend/cpu/ops/gradient/mod.rs
struct Params {
    n: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

fn element(i: u32) {
    y[i] = a[i] + b[i];
}
