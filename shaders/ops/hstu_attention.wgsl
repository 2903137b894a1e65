// hstu_attention: HSTU's pointwise attention, sum_j silu(q_i . k_j + pos_w[N - 1 + j - i] + ts_w[bucket_ij]) / N * v_j
// over the earlier rows j <= i of row i's sequence.
// in   0 params  1 uvqk (rows, 2 * heads * (dv + dqk)): u, v, q, k, heads outermost in each  2 start (rows)
//      3 buckets (rows, words), of time_buckets  4 pos_w (2 N - 1)  5 ts_w (129)
// out  6 y (rows, heads * dv)
// grid folded ceil(dv / 32, or 64 if WIDE) * heads * ceil(rows / ROWS), columns inside, rows outside
// needs lib/attention.wgsl, lib/activation.wgsl   twin src/backend/cpu/ops/attention.rs
// the loop over keys ends at the last row of the workgroup, the others after 2 and 4 turns
struct Params {
    rows: u32,
    heads: u32,
    dqk: u32,
    dv: u32,
    padded_length: u32,   // N
    words: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> uvqk: array<f32>;
@group(0) @binding(2) var<storage, read> start: array<u32>;
@group(0) @binding(3) var<storage, read> buckets: array<u32>;
@group(0) @binding(4) var<storage, read> pos_w: array<f32>;
@group(0) @binding(5) var<storage, read> ts_w: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

fn uvqk_row(row: u32) -> u32 {
    return row * (2u * params.heads * (params.dv + params.dqk));
}

fn q_start(row: u32, head: u32) -> u32 {
    return uvqk_row(row) + 2u * params.heads * params.dv + head * params.dqk;
}

fn k_start(row: u32, head: u32) -> u32 {
    return uvqk_row(row) + 2u * params.heads * params.dv + (params.heads + head) * params.dqk;
}

fn v_start(row: u32, head: u32) -> u32 {
    return uvqk_row(row) + (params.heads + head) * params.dv;
}

fn q_of(index: u32) -> f32 { return uvqk[index]; }
fn kv_of(index: u32) -> f32 { return uvqk[index]; }

// Where the biases of four rows are read from: their bytes of buckets, and their places in pos_w, of key 0.
struct Biases {
    bytes: vec4u,
    positions: vec4u,
}

fn biases_of(rows: vec4u, sequences: vec4u) -> Biases {
    return Biases(rows * (4u * params.words) - sequences, vec4u(params.padded_length - 1u) - rows);
}

// Of row r to key j, which it attends to.
fn bias(biases: Biases, r: u32, j: u32) -> f32 {
    let byte = biases.bytes[r] + j;
    let bucket = (buckets[byte / 4u] >> (8u * (byte % 4u))) & 255u;
    return pos_w[biases.positions[r] + j] + ts_w[bucket];
}

@compute @workgroup_size(SIDE, SIDE)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) grid: vec3u,
    @builtin(local_invocation_id) local: vec3u,
) {
    let task = task_of(group.x + group.y * grid.x, params.heads, params.dv);
    if task.first_row >= params.rows {
        return;
    }
    let rows = rows_of(task, local.y);
    let sequences = vec4u(start[rows.x], start[rows.y], start[rows.z], start[rows.w]);
    let end = min(task.first_row + ROWS, params.rows);
    let biases = biases_of(rows, sequences);
    let queries = starts_of_queries(rows, task.head);
    var sums: Pair;
    var more_sums: Pair;
    for (var first_j = start[task.first_row]; first_j < end; first_j += KEYS) {
        let logits = logits_of(queries, first_j, task.head, params.dqk, local.xy);
        for (var c = 0u; c < 2u; c++) {
            let j = first_j + 2u * local.x + c;
            var weights: vec4f;
            for (var r = 0u; r < 4u; r++) {
                // Pairs that do not attend get the bias of the next one that does: without branches all biases are read at once.
                let attended = clamp(j, sequences[r], rows[r]);
                weights[r] = select(0.0, silu(logits[c][r] + bias(biases, r, attended)), attended == j);
            }
            tile_weights[2u * local.x + c][local.y] = weights;
        }
        sums = with_values(sums, first_j, task.head, task.first_column, params.dv, local.xy);
        if WIDE { more_sums = with_values(more_sums, first_j, task.head, task.first_column + KEYS, params.dv, local.xy); }
    }
    write(task, sums, 0u, local.xy);
    if WIDE { write(task, more_sums, KEYS, local.xy); }
}

fn write(task: Task, unscaled: Pair, columns: u32, local: vec2u) {
    let column = task.first_column + columns + 2u * local.x;
    let scale = 1.0 / f32(params.padded_length);
    let sums = Pair(unscaled[0] * scale, unscaled[1] * scale);
    for (var r = 0u; r < 4u; r++) {
        let i = task.first_row + 4u * local.y + r;
        let at = (i * params.heads + task.head) * params.dv + column;
        if i < params.rows && column < params.dv { y[at] = sums[0][r]; }
        if i < params.rows && column + 1u < params.dv { y[at + 1u] = sums[1][r]; }
    }
}
