// linear: activation(x W + bias) + residual. A workgroup of SIDE by SIDE threads computes 4 SIDE rows and columns, a thread 4
// by 4 of them; SIDE columns of x and rows of W at a time pass through workgroup memory.
// in   0 params  1 x (rows, n_in)  2 weight (n_in, n_out)  3 bias (n_out)  4 residual (rows, n_out)
// out  5 y (rows, n_out)
// grid folded ceil(n_out / (4 SIDE)) * ceil(rows / (4 SIDE)), columns inside   needs lib/activation.wgsl
// twin src/backend/cpu/ops/gemm.rs
// loops over k end at n_in, those inside after SIDE turns, that over columns after 4
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

// tile_x[k][i]: four rows of x at column k; one vector of padding per k spreads the writes over the memory banks.
var<workgroup> tile_x: array<vec4<f32>, SIDE * (SIDE + 1u)>;
// tile_w[k][j]: four columns of W at row k.
var<workgroup> tile_w: array<vec4<f32>, SIDE * SIDE>;

fn x_at(row: u32, k: u32) -> f32 {
    if row < params.rows && k < params.n_in {
        return x[row * params.n_in + k];
    }
    return 0.0;
}

fn weight_at(k: u32, column: u32) -> f32 {
    if k < params.n_in && column < params.n_out {
        return weight[k * params.n_out + column];
    }
    return 0.0;
}

fn finish(row: u32, first_column: u32, sums: vec4<f32>) {
    if row >= params.rows {
        return;
    }
    for (var c = 0u; c < 4u; c++) {
        let column = first_column + c;
        if column < params.n_out {
            var value = sums[c];
            if params.has_bias != 0u {
                value += bias[column];
            }
            value = activate(params.activation, value);
            let i = row * params.n_out + column;
            if params.has_residual != 0u {
                value += residual[i];
            }
            y[i] = value;
        }
    }
}

@compute @workgroup_size(SIDE, SIDE)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let tile = 4u * SIDE;
    let column_tiles = (params.n_out + tile - 1u) / tile;
    let index = group.x + group.y * groups.x;
    let first_row = index / column_tiles * tile;
    let first_column = index % column_tiles * tile;
    if first_row >= params.rows {
        return;
    }
    let row = first_row + 4u * local.y;
    let column = first_column + 4u * local.x;
    var sums_0 = vec4<f32>();
    var sums_1 = vec4<f32>();
    var sums_2 = vec4<f32>();
    var sums_3 = vec4<f32>();
    for (var first_k = 0u; first_k < params.n_in; first_k += SIDE) {
        let k_x = first_k + local.x;
        tile_x[local.x * (SIDE + 1u) + local.y] =
            vec4<f32>(x_at(row, k_x), x_at(row + 1u, k_x), x_at(row + 2u, k_x), x_at(row + 3u, k_x));
        let k_w = first_k + local.y;
        tile_w[local.y * SIDE + local.x] = vec4<f32>(
            weight_at(k_w, column),
            weight_at(k_w, column + 1u),
            weight_at(k_w, column + 2u),
            weight_at(k_w, column + 3u),
        );
        workgroupBarrier();
        for (var k = 0u; k < SIDE; k++) {
            let four_rows = tile_x[k * (SIDE + 1u) + local.y];
            let four_columns = tile_w[k * SIDE + local.x];
            sums_0 += four_rows.x * four_columns;
            sums_1 += four_rows.y * four_columns;
            sums_2 += four_rows.z * four_columns;
            sums_3 += four_rows.w * four_columns;
        }
        workgroupBarrier();
    }
    finish(row, column, sums_0);
    finish(row + 1u, column, sums_1);
    finish(row + 2u, column, sums_2);
    finish(row + 3u, column, sums_3);
}
