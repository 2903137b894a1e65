// softmax_pairs: of one head of a softmax attention, for each pair of a row and one that it attends to, its probability after dropout
// and, unless FORWARD, the derivative with respect to q . k. One workgroup per row.
// in   0 params  1 q (rows, heads * d)  2 kv (rows, 2 * heads * d): keys, then values  3 start (rows)  4 dy (rows, heads * d)
// out  5 weights (rows, length)  6 slopes (rows, length): of row i and row j of its sequence
// grid folded rows   needs lib/dropout.wgsl, lib/reduction.wgsl   twin src/backend/cpu/ops/gradient/softmax_attention.rs
// loops over keys end with the sequence, those over columns at d
override FORWARD: bool = false;

struct Params {
    rows: u32,
    heads: u32,
    d: u32,
    head: u32,
    length: u32,
    causal: u32,
    mask_stride: u32,   // elements of dropout for a row and head; 0: no dropout
    threshold: u32,
    scale: f32,
    key_0: u32,
    key_1: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<f32>;
@group(0) @binding(2) var<storage, read> kv: array<f32>;
@group(0) @binding(3) var<storage, read> start: array<u32>;
@group(0) @binding(4) var<storage, read> dy: array<f32>;
@group(0) @binding(5) var<storage, read_write> weights: array<f32>;
@group(0) @binding(6) var<storage, read_write> slopes: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) grid: vec3u,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = group.x + group.y * grid.x;
    if row >= params.rows {
        return;
    }
    let sequence = start[row];
    let d = params.d;
    let own = (row * params.heads + params.head) * d;
    let last = select(params.rows, row + 1u, params.causal != 0u);
    let factor = 1.0 / sqrt(f32(d));
    let first_pair = row * params.length;
    var greatest = -1e38;
    for (var j = sequence + thread; j < last; j += WORKGROUP) {
        if start[j] != sequence { break; }
        let key = (2u * j * params.heads + params.head) * d;
        var sum = 0.0;
        for (var c = 0u; c < d; c++) { sum += q[own + c] * kv[key + c]; }
        weights[first_pair + j - sequence] = sum * factor;
        greatest = max(greatest, sum * factor);
    }
    greatest = greatest_of_threads(thread, greatest);
    var total = 0.0;
    for (var j = sequence + thread; j < last; j += WORKGROUP) {
        if start[j] != sequence { break; }
        total += exp(weights[first_pair + j - sequence] - greatest);
    }
    total = sum_of_threads(thread, total);
    let dropout = Dropout(vec2u(params.key_0, params.key_1), params.threshold, params.scale);
    var mean = 0.0;
    for (var j = sequence + thread; j < last; j += WORKGROUP) {
        if start[j] != sequence { break; }
        let pair = first_pair + j - sequence;
        let probability = exp(weights[pair] - greatest) / total;
        var kept_by = 1.0;
        if params.mask_stride != 0u {
            kept_by = kept(dropout, (row * params.heads + params.head) * params.mask_stride + j - sequence);
        }
        if FORWARD {
            weights[pair] = probability * kept_by;
        } else {
            let value = ((2u * j + 1u) * params.heads + params.head) * d;
            var sum = 0.0;
            for (var c = 0u; c < d; c++) { sum += dy[own + c] * kv[value + c]; }
            slopes[pair] = sum * kept_by;
            mean += probability * sum * kept_by;
        }
    }
    if !FORWARD {
        mean = sum_of_threads(thread, mean);
        for (var j = sequence + thread; j < last; j += WORKGROUP) {
            if start[j] != sequence { break; }
            let pair = first_pair + j - sequence;
            let probability = exp(weights[pair] - greatest) / total;
            var kept_by = 1.0;
            if params.mask_stride != 0u {
                kept_by = kept(dropout, (row * params.heads + params.head) * params.mask_stride + j - sequence);
            }
            weights[pair] = probability * kept_by;
            slopes[pair] = probability * (slopes[pair] - mean) * factor;
        }
    }
}
