// attention_sums: of one head, each row's sum of rows of its sequence, by weights of pairs: what is attended to, and the gradients of
// queries, keys and values.
// in   0 params  1 weights (rows, length): of row i and row j of its sequence  2 start (rows)  3 x (rows, x_stride)
// out  4 y (rows, y_stride): columns y_first .. y_first + width
// grid folded ceil(n / WORKGROUP), n = rows * width   needs lib/element_wise.wgsl
// twin src/backend/cpu/ops/gradient/softmax_attention.rs
// the loop ends with the sequence
struct Params {
    n: u32,
    rows: u32,
    width: u32,
    length: u32,
    x_stride: u32,
    x_first: u32,
    y_stride: u32,
    y_first: u32,
    transposed: u32,   // whether weights are those of rows that attend to this one, not of those that it attends to
    causal: u32,       // whether rows attend to themselves and earlier ones only
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> weights: array<f32>;
@group(0) @binding(2) var<storage, read> start: array<u32>;
@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

fn element(n: u32) {
    let i = n / params.width;
    let column = n % params.width;
    let sequence = start[i];
    let is_transposed = params.transposed != 0u;
    let is_causal = params.causal != 0u;
    let first = select(sequence, i, is_causal && is_transposed);
    let end = select(params.rows, i + 1u, is_causal && !is_transposed);
    var sum = 0.0;
    for (var j = first; j < end; j++) {
        if start[j] != sequence { break; }
        let pair = select(i * params.length + j - sequence, j * params.length + i - sequence, is_transposed);
        sum += weights[pair] * x[j * params.x_stride + params.x_first + column];
    }
    y[i * params.y_stride + params.y_first + column] = sum;
}
