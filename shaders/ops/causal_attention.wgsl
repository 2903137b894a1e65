// causal_attention: softmax attention over the earlier rows of each sequence, scale 1 / sqrt(d). Tiles as in
// hstu_attention; the softmax is online: each row keeps its largest logit so far and rescales when a larger one comes.
// in   0 params  1 q (rows, heads * d)  2 kv (rows, 2 * heads * d): keys, then values  3 start (rows)
// out  4 y (rows, heads * d)
// grid folded ceil(d / (4 TILE)) * heads * ceil(rows / TILE), columns inside, rows outside
// twin src/backend/cpu/ops.rs
override TILE: u32 = 16u;

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

var<workgroup> tile_q: array<f32, TILE * (TILE + 1u)>;
var<workgroup> tile_k: array<f32, TILE * (TILE + 1u)>;
var<workgroup> tile_weights: array<f32, TILE * TILE>;

@compute @workgroup_size(TILE, TILE)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let column_tiles = (params.d + 4u * TILE - 1u) / (4u * TILE);
    let index = group.x + group.y * groups.x;
    let head = index / column_tiles % params.heads;
    let first_row = index / column_tiles / params.heads * TILE;
    if first_row >= params.rows {
        return;
    }
    let width = params.heads * params.d;
    let column = index % column_tiles * 4u * TILE + local.x;

    let i = first_row + local.y;
    let sequence = start[min(i, params.rows - 1u)];
    let end = min(first_row + TILE, params.rows);
    let scale = sqrt(f32(params.d));
    var largest = MASKED;
    var denominator = 0.0;
    var sums = vec4<f32>();
    for (var first_j = start[first_row]; first_j < end; first_j += TILE) {
        var logit = 0.0;
        for (var first_d = 0u; first_d < params.d; first_d += TILE) {
            let place = local.y * (TILE + 1u) + local.x;
            let d = first_d + local.x;
            tile_q[place] = 0.0;
            tile_k[place] = 0.0;
            if d < params.d && i < params.rows {
                tile_q[place] = q[i * width + head * params.d + d];
            }
            if d < params.d && first_j + local.y < end {
                tile_k[place] = kv[(first_j + local.y) * 2u * width + head * params.d + d];
            }
            workgroupBarrier();
            for (var k = 0u; k < TILE; k++) {
                logit += tile_q[local.y * (TILE + 1u) + k] * tile_k[local.x * (TILE + 1u) + k];
            }
            workgroupBarrier();
        }
        let j = first_j + local.x;
        let attended = j >= sequence && j <= i;
        logit = select(MASKED, logit / scale, attended);
        tile_weights[local.y * TILE + local.x] = logit;
        workgroupBarrier();
        let before = largest;
        for (var lane = 0u; lane < TILE; lane++) {
            largest = max(largest, tile_weights[local.y * TILE + lane]);
        }
        workgroupBarrier();
        tile_weights[local.y * TILE + local.x] = select(0.0, exp(logit - largest), attended);
        workgroupBarrier();
        let rescale = exp(before - largest);
        denominator *= rescale;
        sums *= rescale;
        // Columns beyond d read whatever comes next in the row; they are not written.
        for (var lane = 0u; lane < TILE && first_j + lane < end; lane++) {
            let weight = tile_weights[local.y * TILE + lane];
            let v = (first_j + lane) * 2u * width + width + head * params.d + column;
            denominator += weight;
            sums += weight * vec4<f32>(kv[v], kv[v + TILE], kv[v + 2u * TILE], kv[v + 3u * TILE]);
        }
        workgroupBarrier();
    }
    for (var c = 0u; c < 4u; c++) {
        if i < params.rows && column + c * TILE < params.d {
            y[i * width + head * params.d + column + c * TILE] = sums[c] / denominator;
        }
    }
}
