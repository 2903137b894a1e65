// causal_attention: softmax attention over the earlier rows of each sequence, scale 1 / sqrt(d). The softmax is online: each
// row keeps its largest logit so far and rescales when a larger one comes.
// in   0 params  1 q (rows, heads * d)  2 kv (rows, 2 * heads * d): keys, then values  3 start (rows)
// out  4 y (rows, heads * d)
// grid folded ceil(d / (4 ROWS)) * heads * ceil(rows / ROWS), columns inside, rows outside
// needs lib/attention.wgsl   twin src/backend/cpu/ops/attention.rs
// loops over rows end at the last row of the workgroup, those inside after ROWS turns, that over columns after 4
struct Params {
    rows: u32,
    heads: u32,
    d: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<f32>;
@group(0) @binding(2) var<storage, read> kv: array<f32>;
@group(0) @binding(3) var<storage, read> start: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

// Below every logit, and finite: differences of two stay numbers.
const MASKED: f32 = -1e38;

fn q_at(row: u32, head: u32, d: u32) -> f32 {
    if row < params.rows && d < params.d {
        return q[(row * params.heads + head) * params.d + d];
    }
    return 0.0;
}

fn k_at(row: u32, head: u32, d: u32) -> f32 {
    if row < params.rows && d < params.d {
        return kv[(2u * row * params.heads + head) * params.d + d];
    }
    return 0.0;
}

fn values_at(row: u32, head: u32, columns: vec4u) -> vec4f {
    let v = vec4u(((2u * row + 1u) * params.heads + head) * params.d) + columns;
    return vec4f(kv[v.x], kv[v.y], kv[v.z], kv[v.w]);
}

@compute @workgroup_size(ROWS, ROWS)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) grid: vec3u,
    @builtin(local_invocation_id) local: vec3u,
) {
    let task = task_of(group.x + group.y * grid.x, params.heads, params.d);
    if task.first_row >= params.rows {
        return;
    }
    let columns = columns_of(task, local.x);
    // Columns that do not exist are read as the last one, and not written.
    let read_columns = min(columns, vec4u(params.d - 1u));

    let i = task.first_row + local.y;
    let sequence = start[min(i, params.rows - 1u)];
    let end = min(task.first_row + ROWS, params.rows);
    let scale = sqrt(f32(params.d));
    let own = local.y * ROWS + local.x;
    var largest = MASKED;
    var denominator = 0.0;
    var sums = vec4f();
    for (var first_j = start[task.first_row]; first_j < end; first_j += ROWS) {
        var logit = logit_of(i, first_j, task.head, params.d, local);
        let j = first_j + local.x;
        let attended = j >= sequence && j <= i;
        logit = select(MASKED, logit / scale, attended);
        tile_weights[own] = logit;
        workgroupBarrier();
        let before = largest;
        for (var other = 0u; other < ROWS; other++) {
            largest = max(largest, tile_weights[local.y * ROWS + other]);
        }
        workgroupBarrier();
        tile_weights[own] = select(0.0, exp(logit - largest), attended);
        workgroupBarrier();
        let rescale = exp(before - largest);
        denominator *= rescale;
        for (var other = 0u; other < ROWS; other++) {
            denominator += tile_weights[local.y * ROWS + other];
        }
        sums = with_values(sums * rescale, first_j, end, task.head, read_columns, local.y);
        workgroupBarrier();
    }
    for (var c = 0u; c < 4u; c++) {
        if i < params.rows && columns[c] < params.d {
            y[(i * params.heads + task.head) * params.d + columns[c]] = sums[c] / denominator;
        }
    }
}
