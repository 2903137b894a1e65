// softmax_attention: softmax attention within each sequence, to the earlier rows or, if BIDIRECTIONAL, to all; scale 1 / sqrt(d). The
// softmax is online: each row keeps its largest logit so far and rescales when a larger one comes.
// in   0 params  1 q (rows, heads * d)  2 kv (rows, 2 * heads * d): keys, then values  3 start (rows)
// out  4 y (rows, heads * d)
// grid folded ceil(d / 32, or 64 if WIDE) * heads * ceil(rows / ROWS), columns inside, rows outside
// needs lib/attention.wgsl   twin src/backend/cpu/ops/attention.rs
// the loop over keys ends at the last row of the workgroup, or of all; those inside after SIDE turns, that over rows after 4
override BIDIRECTIONAL: bool = false;

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

// Below every logit, and finite: differences of two stay numbers. A power of two, so that its product with any scale is exact.
const MASKED: f32 = -0x1p126;
const LOG2_E: f32 = 1.4426950408889634;

fn q_start(row: u32, head: u32) -> u32 { return row * (params.heads * params.d) + head * params.d; }
fn k_start(row: u32, head: u32) -> u32 { return row * (2u * params.heads * params.d) + head * params.d; }
fn v_start(row: u32, head: u32) -> u32 { return k_start(row, head) + params.heads * params.d; }
fn q_of(index: u32) -> f32 { return q[index]; }
fn kv_of(index: u32) -> f32 { return kv[index]; }

// Which of four rows, of sequences that begin there, attend to row j.
fn attended(j: u32, rows: vec4u, sequences: vec4u) -> vec4<bool> {
    if BIDIRECTIONAL {
        return (vec4u(start[min(j, params.rows - 1u)]) == sequences) & vec4<bool>(j < params.rows);
    }
    return (vec4u(j) >= sequences) & (vec4u(j) <= rows);
}

@compute @workgroup_size(SIDE, SIDE)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) grid: vec3u,
    @builtin(local_invocation_id) local: vec3u,
) {
    let task = task_of(group.x + group.y * grid.x, params.heads, params.d);
    if task.first_row >= params.rows {
        return;
    }
    let rows = rows_of(task, local.y);
    let sequences = vec4u(start[rows.x], start[rows.y], start[rows.z], start[rows.w]);
    let own_end = min(task.first_row + ROWS, params.rows);
    let end = select(own_end, params.rows, BIDIRECTIONAL);
    let last_sequence = start[own_end - 1u];
    // exp(logit / sqrt(d)) = exp2(logit scale)
    let scale = LOG2_E / sqrt(f32(params.d));
    let queries = starts_of_queries(rows, task.head);
    // Of each row: the largest logit so far, and of the keys of this thread the sum of the exponentials.
    var largest = vec4f(MASKED);
    var denominators: vec4f;
    var sums: Pair;
    var more_sums: Pair;
    for (var first_j = start[task.first_row]; first_j < end; first_j += KEYS) {
        if BIDIRECTIONAL && start[first_j] > last_sequence { break; }
        var logits = logits_of(queries, first_j, task.head, params.d, local.xy);
        let j = first_j + 2u * local.x;
        let first = attended(j, rows, sequences);
        let second = attended(j + 1u, rows, sequences);
        logits[0] = select(vec4f(MASKED), logits[0], first);
        logits[1] = select(vec4f(MASKED), logits[1], second);

        tile_weights[local.x][local.y] = max(logits[0], logits[1]);
        workgroupBarrier();
        let before = largest * scale;
        for (var x = 0u; x < SIDE; x++) { largest = max(largest, tile_weights[x][local.y]); }
        workgroupBarrier();

        let top = largest * scale;
        let exponentials = Pair(
            select(vec4f(), exp2(fma(logits[0], vec4f(scale), -top)), first),
            select(vec4f(), exp2(fma(logits[1], vec4f(scale), -top)), second),
        );
        tile_weights[2u * local.x][local.y] = exponentials[0];
        tile_weights[2u * local.x + 1u][local.y] = exponentials[1];
        let rescale = exp2(before - top);
        denominators = denominators * rescale + exponentials[0] + exponentials[1];
        sums = Pair(sums[0] * rescale, sums[1] * rescale);
        sums = with_values(sums, first_j, task.head, task.first_column, params.d, local.xy);
        if WIDE {
            more_sums = Pair(more_sums[0] * rescale, more_sums[1] * rescale);
            more_sums = with_values(more_sums, first_j, task.head, task.first_column + KEYS, params.d, local.xy);
        }
    }
    // The denominators of all keys.
    tile_weights[local.x][local.y] = denominators;
    workgroupBarrier();
    denominators = vec4f();
    for (var x = 0u; x < SIDE; x++) { denominators += tile_weights[x][local.y]; }
    write(task, Pair(sums[0] / denominators, sums[1] / denominators), 0u, local.xy);
    if WIDE { write(task, Pair(more_sums[0] / denominators, more_sums[1] / denominators), KEYS, local.xy); }
}

fn write(task: Task, sums: Pair, columns: u32, local: vec2u) {
    let column = task.first_column + columns + 2u * local.x;
    for (var r = 0u; r < 4u; r++) {
        let i = task.first_row + 4u * local.y + r;
        let at = (i * params.heads + task.head) * params.d + column;
        if i < params.rows && column < params.d { y[at] = sums[0][r]; }
        if i < params.rows && column + 1u < params.d { y[at + 1u] = sums[1][r]; }
    }
}
