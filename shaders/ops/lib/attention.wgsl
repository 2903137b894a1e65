// attention: what the attention kernels share. A workgroup computes ROWS rows by 32 columns of one head, or, if WIDE, by 64. It walks
// over the keys that these may attend to, KEYS at a time, from the first row of the first sequence on; the kernel masks those of
// other sequences and later ones. Thread (x, y) has the weights of rows 4 y .. 4 y + 4 and keys 2 x, 2 x + 1, and sums of the same rows
// and columns 2 x, 2 x + 1, if WIDE of 32 + 2 x, 33 + 2 x, too.
// needs of the kernel: params.rows; q_start, k_start, v_start (row, head): where a query, a key, a value begins; q_of, kv_of (index): its
// elements
// loops over d end at the width of a key or after SIDE / 4 turns, that over keys after KEYS / 4, the others after 4
override WIDE: bool = false;

const SIDE: u32 = 16u;
const ROWS: u32 = 4u * SIDE;
const KEYS: u32 = 2u * SIDE;

// Bounds of each index are checked by itself: those of d and of keys are constants once the loops are written out.
var<workgroup> tile_q: array<array<vec4f, SIDE>, SIDE>;         // [d][y]: four rows
var<workgroup> tile_kv: array<array<vec2f, SIDE>, KEYS>;        // [d][x]: two keys; later [key][x]: two columns
var<workgroup> tile_weights: array<array<vec4f, SIDE>, KEYS>;   // [key][y]: four rows

// Of two keys or columns: values of four rows.
alias Pair = array<vec4f, 2>;

// What workgroup `index` computes.
struct Task {
    head: u32,
    first_row: u32,
    first_column: u32,
}

// Of `heads` heads of `width` columns.
fn task_of(index: u32, heads: u32, width: u32) -> Task {
    let tile = select(2u, 4u, WIDE) * SIDE;
    let column_tiles = (width + tile - 1u) / tile;
    return Task(index / column_tiles % heads, index / column_tiles / heads * ROWS, index % column_tiles * tile);
}

// The four rows of a thread, the last one for those that do not exist.
fn rows_of(task: Task, y: u32) -> vec4u {
    return min(vec4u(task.first_row + 4u * y) + vec4u(0u, 1u, 2u, 3u), vec4u(params.rows - 1u));
}

// Brings SIDE elements of queries and keys from first_d on, zeros for those beyond the width.
fn stage_products(q: vec4u, k: vec2u, first_d: u32, width: u32, local: vec2u) {
    let d = first_d + local.x;
    let i = q + min(d, width - 1u);
    let j = k + min(d, width - 1u);
    tile_q[local.x][local.y] = select(vec4f(), vec4f(q_of(i.x), q_of(i.y), q_of(i.z), q_of(i.w)), d < width);
    tile_kv[local.x][local.y] = vec2f(kv_of(j.x), kv_of(j.y));
}

// Adds the products of four elements.
fn add_products(logits: ptr<function, Pair>, d: u32, local: vec2u) {
    for (var i = 0u; i < 4u; i++) {
        let rows = tile_q[d + i][local.y];
        let keys = tile_kv[d + i][local.x];
        (*logits)[0] += rows * keys.x;
        (*logits)[1] += rows * keys.y;
    }
}

// Where the queries of four rows begin.
fn starts_of_queries(rows: vec4u, head: u32) -> vec4u {
    return vec4u(q_start(rows.x, head), q_start(rows.y, head), q_start(rows.z, head), q_start(rows.w, head));
}

// By all threads of a workgroup: q_i . k_j of the rows of each, whose queries begin at q, and the keys from first_j on, elements of a number
// `width`.
fn logits_of(q: vec4u, first_j: u32, head: u32, width: u32, local: vec2u) -> Pair {
    let key = first_j + 2u * local.y;
    let k = vec2u(k_start(min(key, params.rows - 1u), head), k_start(min(key + 1u, params.rows - 1u), head));
    var logits: Pair;
    var first_d = 0u;
    for (; first_d + SIDE <= width; first_d += SIDE) {
        stage_products(q, k, first_d, width, local);
        workgroupBarrier();
        for (var d = 0u; d < SIDE; d += 4u) { add_products(&logits, d, local); }
        workgroupBarrier();
    }
    if first_d < width {
        stage_products(q, k, first_d, width, local);
        workgroupBarrier();
        for (var d = 0u; first_d + d < width; d += 4u) { add_products(&logits, d, local); }
        workgroupBarrier();
    }
    return logits;
}

// By all threads of a workgroup: `sums` and the weighted values of two columns of each.
fn with_values(sums: Pair, first_j: u32, head: u32, first_column: u32, width: u32, local: vec2u) -> Pair {
    let column = first_column + 2u * local.x;
    for (var half = 0u; half < KEYS; half += SIDE) {
        let j = half + local.y;
        let start = v_start(min(first_j + j, params.rows - 1u), head);
        tile_kv[j][local.x] = vec2f(kv_of(start + min(column, width - 1u)), kv_of(start + min(column + 1u, width - 1u)));
    }
    workgroupBarrier();
    var total = sums;
    for (var j = 0u; j < KEYS; j += 4u) {
        for (var i = 0u; i < 4u; i++) {
            let weights = tile_weights[j + i][local.y];
            let values = tile_kv[j + i][local.x];
            total[0] += weights * values.x;
            total[1] += weights * values.y;
        }
    }
    workgroupBarrier();
    return total;
}
