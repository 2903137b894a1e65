// attention: what the attention kernels share. A workgroup computes ROWS rows by 4 ROWS columns of one head. It walks over the
// rows that these may attend to, ROWS at a time, from the first row of the first sequence on; the kernel masks those of other
// sequences and later ones. Thread (x, y) has the weight of row y for the x-th of these rows, and columns x, x + ROWS, x + 2 ROWS
// and x + 3 ROWS of row y of the result.
// needs of the kernel: params.rows; q_at, k_at (row, head, d): an element of a query or a key, 0 beyond the rows and the width;
// values_at (row, head, columns): four elements of a value
// loops over d end at the width of a key, those over rows after ROWS turns
const ROWS: u32 = 16u;
const STRIDE: u32 = ROWS + 1u;   // spreads the writes over the memory banks

var<workgroup> tile_q: array<f32, ROWS * STRIDE>;
var<workgroup> tile_k: array<f32, ROWS * STRIDE>;
var<workgroup> tile_weights: array<f32, ROWS * ROWS>;

// What workgroup `index` computes.
struct Task {
    head: u32,
    first_row: u32,
    first_column: u32,
}

// Of `heads` heads of `width` columns.
fn task_of(index: u32, heads: u32, width: u32) -> Task {
    let column_tiles = (width + 4u * ROWS - 1u) / (4u * ROWS);
    return Task(
        index / column_tiles % heads,
        index / column_tiles / heads * ROWS,
        index % column_tiles * 4u * ROWS,
    );
}

// The columns of a thread.
fn columns_of(task: Task, x: u32) -> vec4u {
    return vec4u(task.first_column + x) + vec4u(0u, ROWS, 2u * ROWS, 3u * ROWS);
}

// By all threads of a workgroup: q_i . k_j of row i and row j = first_j + x, each of `width` elements.
fn logit_of(i: u32, first_j: u32, head: u32, width: u32, local: vec3u) -> f32 {
    var logit = 0.0;
    for (var first_d = 0u; first_d < width; first_d += ROWS) {
        let place = local.y * STRIDE + local.x;
        tile_q[place] = q_at(i, head, first_d + local.x);
        tile_k[place] = k_at(first_j + local.y, head, first_d + local.x);
        workgroupBarrier();
        for (var d = 0u; d < ROWS; d++) {
            logit += tile_q[local.y * STRIDE + d] * tile_k[local.x * STRIDE + d];
        }
        workgroupBarrier();
    }
    return logit;
}

// `sums` and the weighted values of up to ROWS rows from first_j on that lie before `end`.
fn with_values(sums: vec4f, first_j: u32, end: u32, head: u32, columns: vec4u, y: u32) -> vec4f {
    var total = sums;
    for (var j = 0u; j < ROWS && first_j + j < end; j++) {
        total += tile_weights[y * ROWS + j] * values_at(first_j + j, head, columns);
    }
    return total;
}
