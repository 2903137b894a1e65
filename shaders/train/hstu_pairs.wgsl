// hstu_pairs: of one head of HSTU's attention, the weight of each pair of a row and one that it attends to, and the derivative with
// respect to what silu is applied to; the sum of that over heads. A thread computes one pair.
// in   0 params  1 uvqk (rows, 2 * heads * (dv + dqk))  2 start (rows)  3 buckets (rows, words)  4 pos_w (2 N - 1)  5 ts_w (129)
//      6 dy (rows, heads * dv)
// out  7 pairs (3, plane), plane >= rows * length: weights, slopes, their sum over heads so far, of row i and row j of its sequence
// grid folded ceil(n / WORKGROUP), n = rows * length   needs lib/element_wise.wgsl, lib/activation.wgsl, lib/slope.wgsl
// twin src/backend/cpu/ops/gradient/hstu_attention.rs
// loops over columns end at dqk and dv
struct Params {
    n: u32,
    length: u32,
    heads: u32,
    dqk: u32,
    dv: u32,
    padded_length: u32,   // N
    words: u32,
    head: u32,
    plane: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> uvqk: array<f32>;
@group(0) @binding(2) var<storage, read> start: array<u32>;
@group(0) @binding(3) var<storage, read> buckets: array<u32>;
@group(0) @binding(4) var<storage, read> pos_w: array<f32>;
@group(0) @binding(5) var<storage, read> ts_w: array<f32>;
@group(0) @binding(6) var<storage, read> dy: array<f32>;
@group(0) @binding(7) var<storage, read_write> pairs: array<f32>;

fn element(pair: u32) {
    let i = pair / params.length;
    let place = pair % params.length;
    let j = start[i] + place;
    if j > i {
        return;
    }
    let stride = 2u * params.heads * (params.dv + params.dqk);
    let queries = 2u * params.heads * params.dv + params.head * params.dqk;
    let q = i * stride + queries;
    let k = j * stride + queries + params.heads * params.dqk;
    var logit = 0.0;
    for (var c = 0u; c < params.dqk; c++) { logit += uvqk[q + c] * uvqk[k + c]; }
    let bucket = (buckets[i * params.words + place / 4u] >> (8u * (place % 4u))) & 255u;
    logit += pos_w[params.padded_length - 1u + j - i] + ts_w[bucket];
    let v = j * stride + (params.heads + params.head) * params.dv;
    let of_row = (i * params.heads + params.head) * params.dv;
    var of_weight = 0.0;
    for (var c = 0u; c < params.dv; c++) { of_weight += dy[of_row + c] * uvqk[v + c]; }
    let scale = 1.0 / f32(params.padded_length);
    let derivative = silu_slope(logit) * scale * of_weight;
    pairs[pair] = silu(logit) * scale;
    pairs[params.plane + pair] = derivative;
    if params.head == 0u {
        pairs[2u * params.plane + pair] = derivative;
    } else {
        pairs[2u * params.plane + pair] += derivative;
    }
}
