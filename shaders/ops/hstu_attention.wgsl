// hstu_attention: HSTU's pointwise attention, sum_j silu(q_i . k_j + pos_w[N - 1 + j - i] + ts_w[bucket_ij]) / N * v_j
// over the earlier rows j <= i of row i's sequence. A workgroup computes TILE rows by 4 TILE columns of one head; it
// walks over all rows from the first one that its first row attends to, TILE at a time, and masks by sequence.
// in   0 params  1 uvqk (rows, 2 * heads * (dv + dqk)): u, v, q, k, heads outermost in each  2 start (rows)
//      3 buckets (rows, words), of time_buckets  4 pos_w (2 N - 1)  5 ts_w (129)
// out  6 y (rows, heads * dv)
// grid folded ceil(dv / (4 TILE)) * heads * ceil(rows / TILE), columns inside, rows outside
// needs lib/activation.wgsl   twin src/backend/cpu/ops.rs
override TILE: u32 = 16u;

struct Params {
    rows: u32,
    heads: u32,
    dqk: u32,
    dv: u32,
    padded_length: u32,
    words: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> uvqk: array<f32>;
@group(0) @binding(2) var<storage, read> start: array<u32>;
@group(0) @binding(3) var<storage, read> buckets: array<u32>;
@group(0) @binding(4) var<storage, read> pos_w: array<f32>;
@group(0) @binding(5) var<storage, read> ts_w: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

var<workgroup> tile_q: array<f32, TILE * (TILE + 1u)>;
var<workgroup> tile_k: array<f32, TILE * (TILE + 1u)>;
var<workgroup> tile_weights: array<f32, TILE * TILE>;

fn uvqk_at(row: u32, first: u32, d: u32) -> f32 {
    if row < params.rows && d < params.dqk {
        return uvqk[row * 2u * params.heads * (params.dv + params.dqk) + first + d];
    }
    return 0.0;
}

fn bias(i: u32, j: u32, sequence: u32) -> f32 {
    let byte = j - sequence;
    let bucket = (buckets[i * params.words + byte / 4u] >> (8u * (byte % 4u))) & 255u;
    return pos_w[params.padded_length - 1u + j - i] + ts_w[bucket];
}

@compute @workgroup_size(TILE, TILE)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let column_tiles = (params.dv + 4u * TILE - 1u) / (4u * TILE);
    let index = group.x + group.y * groups.x;
    let head = index / column_tiles % params.heads;
    let first_row = index / column_tiles / params.heads * TILE;
    if first_row >= params.rows {
        return;
    }
    let stride = 2u * params.heads * (params.dv + params.dqk);
    let first_q = 2u * params.heads * params.dv + head * params.dqk;
    let first_k = first_q + params.heads * params.dqk;
    let column = index % column_tiles * 4u * TILE + local.x;
    let first_v = (params.heads + head) * params.dv + column;

    let i = first_row + local.y;
    let sequence = start[min(i, params.rows - 1u)];
    let end = min(first_row + TILE, params.rows);
    var sums = vec4<f32>();
    for (var first_j = start[first_row]; first_j < end; first_j += TILE) {
        var logit = 0.0;
        for (var first_d = 0u; first_d < params.dqk; first_d += TILE) {
            let place = local.y * (TILE + 1u) + local.x;
            tile_q[place] = uvqk_at(i, first_q, first_d + local.x);
            tile_k[place] = uvqk_at(first_j + local.y, first_k, first_d + local.x);
            workgroupBarrier();
            for (var d = 0u; d < TILE; d++) {
                logit += tile_q[local.y * (TILE + 1u) + d] * tile_k[local.x * (TILE + 1u) + d];
            }
            workgroupBarrier();
        }
        let j = first_j + local.x;
        var attention = 0.0;
        if i < params.rows && j >= sequence && j <= i {
            attention = silu(logit + bias(i, j, sequence)) / f32(params.padded_length);
        }
        tile_weights[local.y * TILE + local.x] = attention;
        workgroupBarrier();
        // Columns beyond dv read whatever comes next in the row; they are not written.
        for (var lane = 0u; lane < TILE && first_j + lane < end; lane++) {
            let v = (first_j + lane) * stride + first_v;
            sums += tile_weights[local.y * TILE + lane]
                * vec4<f32>(uvqk[v], uvqk[v + TILE], uvqk[v + 2u * TILE], uvqk[v + 3u * TILE]);
        }
        workgroupBarrier();
    }
    for (var c = 0u; c < 4u; c++) {
        if i < params.rows && column + c * TILE < params.dv {
            y[(i * params.heads + head) * params.dv + column + c * TILE] = sums[c];
        }
    }
}
