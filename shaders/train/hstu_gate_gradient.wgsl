// hstu_gate_gradient: the gradient of ops/hstu_gate.wgsl.
// in   0 params  1 uvqk (rows, stride): a row starts with u (width)  2 a (rows, width)
//      3 dy (rows, width), or (rows, 3 * width) with concat_ua
// out  4 duvqk (rows, stride): of u; the rest is left alone  5 da (rows, width)
// grid folded ceil(n / WORKGROUP), n = rows * width   needs lib/element_wise.wgsl   twin src/backend/cpu/ops/gradient/norm.rs
struct Params {
    n: u32,
    width: u32,
    stride: u32,
    concat_ua: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> uvqk: array<f32>;
@group(0) @binding(2) var<storage, read> a: array<f32>;
@group(0) @binding(3) var<storage, read> dy: array<f32>;
@group(0) @binding(4) var<storage, read_write> duvqk: array<f32>;
@group(0) @binding(5) var<storage, read_write> da: array<f32>;

fn element(i: u32) {
    let row = i / params.width;
    let column = i % params.width;
    let at = row * params.stride + column;
    if params.concat_ua == 0u {
        duvqk[at] = dy[i] * a[i];
        da[i] = dy[i] * uvqk[at];
    } else {
        let first = row * 3u * params.width + column;
        let product = dy[first + 2u * params.width];
        duvqk[at] = dy[first] + product * a[i];
        da[i] = dy[first + params.width] + product * uvqk[at];
    }
}
