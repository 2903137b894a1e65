// hstu_attention: HSTU's pointwise attention, sum_j silu(q_i . k_j + pos_w[N - 1 + j - i] + ts_w[bucket_ij]) / N * v_j
// over the earlier rows j <= i of row i's sequence.
// in   0 params  1 uvqk (rows, 2 * heads * (dv + dqk)): u, v, q, k, heads outermost in each  2 start (rows)
//      3 buckets (rows, words), of time_buckets  4 pos_w (2 N - 1)  5 ts_w (129)
// out  6 y (rows, heads * dv)
// grid folded ceil(dv / (4 ROWS)) * heads * ceil(rows / ROWS), columns inside, rows outside
// needs lib/attention.wgsl, lib/activation.wgsl   twin src/backend/cpu/ops/attention.rs
// loops over rows end at the last row of the workgroup, that over columns after 4 turns
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
    return row * 2u * params.heads * (params.dv + params.dqk);
}

fn q_at(row: u32, head: u32, d: u32) -> f32 {
    if row < params.rows && d < params.dqk {
        return uvqk[uvqk_row(row) + 2u * params.heads * params.dv + head * params.dqk + d];
    }
    return 0.0;
}

fn k_at(row: u32, head: u32, d: u32) -> f32 {
    if row < params.rows && d < params.dqk {
        return uvqk[uvqk_row(row) + 2u * params.heads * params.dv + (params.heads + head) * params.dqk + d];
    }
    return 0.0;
}

fn values_at(row: u32, head: u32, columns: vec4u) -> vec4f {
    let v = vec4u(uvqk_row(row) + (params.heads + head) * params.dv) + columns;
    return vec4f(uvqk[v.x], uvqk[v.y], uvqk[v.z], uvqk[v.w]);
}

fn bias(i: u32, j: u32, sequence: u32) -> f32 {
    let byte = j - sequence;
    let bucket = (buckets[i * params.words + byte / 4u] >> (8u * (byte % 4u))) & 255u;
    return pos_w[params.padded_length - 1u + j - i] + ts_w[bucket];
}

@compute @workgroup_size(ROWS, ROWS)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) grid: vec3u,
    @builtin(local_invocation_id) local: vec3u,
) {
    let task = task_of(group.x + group.y * grid.x, params.heads, params.dv);
    if task.first_row >= params.rows {
        return;
    }
    let columns = columns_of(task, local.x);
    // Columns that do not exist are read as the last one, and not written.
    let read_columns = min(columns, vec4u(params.dv - 1u));

    let i = task.first_row + local.y;
    let sequence = start[min(i, params.rows - 1u)];
    let end = min(task.first_row + ROWS, params.rows);
    var sums = vec4f();
    for (var first_j = start[task.first_row]; first_j < end; first_j += ROWS) {
        let logit = logit_of(i, first_j, task.head, params.dqk, local);
        let j = first_j + local.x;
        var weight = 0.0;
        if i < params.rows && j >= sequence && j <= i {
            weight = silu(logit + bias(i, j, sequence)) / f32(params.padded_length);
        }
        tile_weights[local.y * ROWS + local.x] = weight;
        workgroupBarrier();
        sums = with_values(sums, first_j, end, task.head, read_columns, local.y);
        workgroupBarrier();
    }
    for (var c = 0u; c < 4u; c++) {
        if i < params.rows && columns[c] < params.dv {
            y[(i * params.heads + task.head) * params.dv + columns[c]] = sums[c];
        }
    }
}
