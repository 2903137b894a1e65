// hstu_bias_gradient: the gradients of pos_w and ts_w of HSTU's attention, of each `chunk` rows.
// in   0 params  1 pairs (rows, length): derivatives by hstu_pairs  2 start (rows)  3 buckets (rows, words)
// out  4 y (ceil(rows / chunk), 2 N - 1 + 129)
// grid folded ceil(n / WORKGROUP), n = ceil(rows / chunk) * (2 N - 1 + 129)   needs lib/element_wise.wgsl
// twin src/backend/cpu/ops/gradient/hstu_attention.rs
// the loop over rows ends after chunk turns, that over keys at the row
struct Params {
    n: u32,
    rows: u32,
    length: u32,
    padded_length: u32,   // N
    words: u32,
    chunk: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> pairs: array<f32>;
@group(0) @binding(2) var<storage, read> start: array<u32>;
@group(0) @binding(3) var<storage, read> buckets: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

fn element(i: u32) {
    let positions = 2u * params.padded_length - 1u;
    let slot = i % (positions + 129u);
    let first = i / (positions + 129u) * params.chunk;
    let end = min(first + params.chunk, params.rows);
    var sum = 0.0;
    for (var row = first; row < end; row++) {
        let place = row - start[row];
        let pair = row * params.length;
        if slot >= positions {
            for (var j = 0u; j <= place; j++) {
                let bucket = (buckets[row * params.words + j / 4u] >> (8u * (j % 4u))) & 255u;
                if bucket == slot - positions { sum += pairs[pair + j]; }
            }
        } else if slot < params.padded_length && params.padded_length - 1u - slot <= place {
            sum += pairs[pair + place - (params.padded_length - 1u - slot)];
        }
    }
    y[i] = sum;
}
