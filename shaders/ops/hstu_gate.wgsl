// hstu_gate: HSTU's gate u * a, or [u, a, u * a].
// in   0 params  1 uvqk (rows, stride): a row starts with u (width)  2 a (rows, width)
// out  3 y (rows, width), or (rows, 3 * width) with concat_ua
// grid folded ceil(n / WORKGROUP), n = rows * width   needs lib/element_wise.wgsl   twin src/backend/cpu/ops/mod.rs
struct Params {
    n: u32,
    width: u32,
    stride: u32,
    concat_ua: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> uvqk: array<f32>;
@group(0) @binding(2) var<storage, read> a: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

fn element(i: u32) {
    let row = i / params.width;
    let column = i % params.width;
    let u = uvqk[row * params.stride + column];
    if params.concat_ua == 0u {
        y[i] = u * a[i];
    } else {
        let first = row * 3u * params.width + column;
        y[first] = u;
        y[first + params.width] = a[i];
        y[first + 2u * params.width] = u * a[i];
    }
}
