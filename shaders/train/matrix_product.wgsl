// matrix_product: A B of matrices with any strides, so that either may be transposed, in parts of `chunk` columns of A each. Tiles as
// in ops/linear.wgsl.
// in   0 params  1 a: (rows, depth)  2 b: (depth, columns)    out 3 y (ceil(depth / chunk), rows, columns)
// grid folded ceil(depth / chunk) * ceil(rows / (4 SIDE)) * ceil(columns / (4 SIDE)), columns innermost, parts outermost
// twin src/backend/cpu/ops/gradient/linear.rs
// loops over k end at the end of the part or after SIDE turns, those over rows and columns after 4
struct Params {
    rows: u32,
    depth: u32,
    columns: u32,
    chunk: u32,
    a_row: u32,      // from row to row of a
    a_column: u32,
    b_row: u32,
    b_column: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

const SIDE: u32 = 16u;

var<workgroup> tile_a: array<array<vec4f, SIDE + 1u>, SIDE>;   // [k][i]: four rows
var<workgroup> tile_b: array<array<vec4f, SIDE>, SIDE>;        // [k][j]: four columns

@compute @workgroup_size(SIDE, SIDE)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_id) local: vec3u,
) {
    let tile = 4u * SIDE;
    let column_tiles = (params.columns + tile - 1u) / tile;
    let row_tiles = (params.rows + tile - 1u) / tile;
    let index = group.x + group.y * groups.x;
    let part = index / (column_tiles * row_tiles);
    let first_k = part * params.chunk;
    if first_k >= params.depth {
        return;
    }
    let end = min(first_k + params.chunk, params.depth);
    let four = vec4u(0u, 1u, 2u, 3u);
    let row = index / column_tiles % row_tiles * tile + 4u * local.y;
    let column = index % column_tiles * tile + 4u * local.x;
    // Rows and columns that do not exist are read as the last ones, and not written.
    let a_rows = min(vec4u(row) + four, vec4u(params.rows - 1u)) * params.a_row;
    let b_columns = min(vec4u(column) + four, vec4u(params.columns - 1u)) * params.b_column;
    var sums: array<vec4f, 4>;
    for (var k = first_k; k < end; k += SIDE) {
        let k_a = k + local.x;
        let i = a_rows + min(k_a, end - 1u) * params.a_column;
        tile_a[local.x][local.y] = select(vec4f(), vec4f(a[i.x], a[i.y], a[i.z], a[i.w]), k_a < end);
        let j = b_columns + min(k + local.y, end - 1u) * params.b_row;
        tile_b[local.y][local.x] = vec4f(b[j.x], b[j.y], b[j.z], b[j.w]);
        workgroupBarrier();
        for (var d = 0u; d < SIDE; d++) {
            let rows = tile_a[d][local.y];
            let columns = tile_b[d][local.x];
            for (var r = 0u; r < 4u; r++) { sums[r] += rows[r] * columns; }
        }
        workgroupBarrier();
    }
    for (var r = 0u; r < 4u; r++) {
        for (var c = 0u; c < 4u; c++) {
            if row + r < params.rows && column + c < params.columns {
                y[(part * params.rows + row + r) * params.columns + column + c] = sums[r][c];
            }
        }
    }
}
