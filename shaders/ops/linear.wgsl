// linear: activation(x W + bias) + residual. A workgroup of SIDE by SIDE threads computes 4 SIDE rows and columns, a thread 4
// by 4 of them; SIDE columns of x and rows of W at a time pass through workgroup memory.
// in   0 params  1 x (rows, n_in)  2 weight (n_in, n_out)  3 bias (n_out)  4 residual (rows, n_out)
// out  5 y (rows, n_out)
// grid folded ceil(n_out / (4 SIDE)) * ceil(rows / (4 SIDE)), columns inside   needs lib/activation.wgsl
// twin src/backend/cpu/ops/gemm.rs
// loops over k end at n_in or after SIDE / 4 turns, those over rows and columns after 4
struct Params {
    rows: u32,
    n_in: u32,
    n_out: u32,
    activation: u32,
    has_bias: u32,
    has_residual: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> residual: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

const SIDE: u32 = 16u;

// tile_x[k][i]: four rows of x at column k; one vector of padding per k spreads the writes over the memory banks. Bounds of each
// index are checked by itself: those of k are constants once the loop is written out.
var<workgroup> tile_x: array<array<vec4f, SIDE + 1u>, SIDE>;
// tile_w[k][j]: four columns of W at row k.
var<workgroup> tile_w: array<array<vec4f, SIDE>, SIDE>;

// Brings SIDE columns of x and rows of W from first_k on, zeros for columns beyond n_in.
fn stage(first_k: u32, x_rows: vec4u, columns: vec4u, local: vec2u) {
    let k_x = first_k + local.x;
    let i = x_rows + min(k_x, params.n_in - 1u);
    tile_x[local.x][local.y] = select(vec4f(), vec4f(x[i.x], x[i.y], x[i.z], x[i.w]), k_x < params.n_in);
    let j = min(first_k + local.y, params.n_in - 1u) * params.n_out + columns;
    tile_w[local.y][local.x] = vec4f(weight[j.x], weight[j.y], weight[j.z], weight[j.w]);
}

// Adds the products of columns k .. k + 4 of the tile.
fn add_four(sums: ptr<function, array<vec4f, 4>>, k: u32, local: vec2u) {
    for (var i = 0u; i < 4u; i++) {
        let four_rows = tile_x[k + i][local.y];
        let four_columns = tile_w[k + i][local.x];
        for (var r = 0u; r < 4u; r++) { (*sums)[r] += four_rows[r] * four_columns; }
    }
}

@compute @workgroup_size(SIDE, SIDE)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_id) local: vec3u,
) {
    let tile = 4u * SIDE;
    let column_tiles = (params.n_out + tile - 1u) / tile;
    let index = group.x + group.y * groups.x;
    let first_row = index / column_tiles * tile;
    let first_column = index % column_tiles * tile;
    if first_row >= params.rows {
        return;
    }
    let four = vec4u(0u, 1u, 2u, 3u);
    let row = first_row + 4u * local.y;
    let column = first_column + 4u * local.x;
    // Rows and columns that do not exist are read as the last ones, and not written.
    let x_rows = min(vec4u(row) + four, vec4u(params.rows - 1u)) * params.n_in;
    let columns = min(vec4u(column) + four, vec4u(params.n_out - 1u));
    var sums: array<vec4f, 4>;
    var first_k = 0u;
    for (; first_k + SIDE <= params.n_in; first_k += SIDE) {
        stage(first_k, x_rows, columns, local.xy);
        workgroupBarrier();
        for (var k = 0u; k < SIDE; k += 4u) { add_four(&sums, k, local.xy); }
        workgroupBarrier();
    }
    if first_k < params.n_in {
        stage(first_k, x_rows, columns, local.xy);
        workgroupBarrier();
        for (var k = 0u; first_k + k < params.n_in; k += 4u) { add_four(&sums, k, local.xy); }
    }

    var biases: vec4f;
    if params.has_bias != 0u { biases = vec4f(bias[columns.x], bias[columns.y], bias[columns.z], bias[columns.w]); }
    for (var r = 0u; r < 4u; r++) {
        let values = sums[r] + biases;
        for (var c = 0u; c < 4u; c++) {
            let i = (row + r) * params.n_out + column + c;
            if row + r < params.rows && column + c < params.n_out {
                var value = activate(params.activation, values[c]);
                if params.has_residual != 0u { value += residual[i]; }
                y[i] = value;
            }
        }
    }
}
