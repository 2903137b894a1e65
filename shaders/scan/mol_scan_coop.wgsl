// mol_scan_coop: mol_scan by cooperative matrices, for tables of at most 16 bits. A workgroup scores QUERIES_PER_WORKGROUP queries
// and the items of a tile, one pair a thread; products are of halves, and summed in f32:
//
//     Z_m = F G_m^T                  rows: vectors of the queries; columns: the items, by their vector m; by SLICE of depth
//     A   = silu(W1 Z + b1)          columns: the pairs; EDGE hidden units at a time
//     G   = W2 A + W Z + b2
//
// What is rounded to a half: query vectors, weights, the logits that enter the gate, A. The logits that are mixed, biases, the
// one-sided gate parts and the softmax are as in mol_scan.
// in  7 weights, of which only biases are read    8 halves: tiles of EDGE * EDGE, row-major: W1 (hidden units / EDGE, logits /
//     EDGE), W2 (hidden units / EDGE, logits / EDGE), W (logits / EDGE, logits / EDGE), the last two transposed inside
// loops end after numbers of turns that are constants; those over `pair` after at most one
// grid (query blocks, tiles of the chunk)   twin src/backend/cpu/scan/mol_scan.rs
// needs constants QUERIES_PER_WORKGROUP, ROWS (query vectors, in whole tiles), DEPTH (of a vector, in whole tiles), SLICE, LOGIT_MATRICES,
// HIDDEN_MATRICES, STRIP (column tiles of a subgroup), STAGED, PRODUCTS, and those of lib/mol.wgsl; lib/matrices_*.wgsl; lib/per_query_1.wgsl;
// lib/pair.wgsl; lib/chunk.wgsl
@group(0) @binding(7) var<storage, read> weights: array<vec4f>;
@group(0) @binding(8) var<storage, read> halves: array<f16>;

const PAIRS: u32 = QUERIES_PER_WORKGROUP * TILE;
const MATRIX: u32 = EDGE * EDGE;
const UNIT_QUADS: u32 = 1u + 2u * L4;

// Rows of matrices in workgroup memory; the padding puts the rows of a tile into different banks.
const PAIR_STRIDE: u32 = PAIRS + 8u;
const ITEM_STRIDE: u32 = TILE + 8u;
const SLICE_STRIDE: u32 = SLICE + 8u;

// Query vectors (ROWS, SLICE) and behind them item vectors (TILE, SLICE); later logits (LOGIT_MATRICES * EDGE, PAIRS) and behind them
// hidden units (EDGE, PAIRS).
var<workgroup> staged: array<f16, STAGED>;
// Products (ROWS, TILE); later those of hidden units or of gate values (EDGE, PAIRS).
var<workgroup> products: array<f32, PRODUCTS>;

const ITEM_ROWS: u32 = ROWS * SLICE_STRIDE;
const UNIT_ROWS: u32 = LOGIT_MATRICES * EDGE * PAIR_STRIDE;

fn half(x: f32) -> f16 { return f16(clamp(x, -65504.0, 65504.0)); }

// Vectors of the block's queries, from depth `depth` on.
fn stage_queries(block: u32, depth: u32, thread: u32) {
    for (var i = thread; i < ROWS * SLICE; i += PAIRS) {
        let row = i / SLICE;
        let d = depth + i % SLICE;
        let query = block * QUERIES_PER_WORKGROUP + row / QUERY_VECTORS;
        var value = 0.0;
        if row < QUERIES_PER_WORKGROUP * QUERY_VECTORS && query < params.n_queries && d < D4 * 4u {
            value = queries[(query * QUERY_QUADS + row % QUERY_VECTORS * D4) * 4u + d];
        }
        staged[row * SLICE_STRIDE + i % SLICE] = half(value);
    }
}

// Vectors `m` of the tile's items, from depth `depth` on. Threads side by side take quads of an item, as they lie in memory.
fn stage_items(tile: u32, m: u32, depth: u32, thread: u32) {
    for (var i = thread; i < SLICE / 4u * TILE; i += PAIRS) {
        let item = i / (SLICE / 4u);
        let quad = i % (SLICE / 4u);
        var x = vec4f(0.0);
        if depth / 4u + quad < D4 { x = unpacked(items[quad_of_vector(item_of(tile, item), m, depth / 4u + quad)]); }
        for (var c = 0u; c < 4u; c++) { staged[ITEM_ROWS + item * SLICE_STRIDE + quad * 4u + c] = f16(x[c]); }
    }
}

// Products of what is staged; those of further slices are added to the first ones.
fn multiply(is_first: bool, subgroup: u32, subgroups: u32) {
    for (var t = subgroup; t < ROWS / EDGE * (TILE / EDGE); t += subgroups) {
        let row = t / (TILE / EDGE) * EDGE;
        let column = t % (TILE / EDGE) * EDGE;
        let at = row * ITEM_STRIDE + column;
        var sum = coopLoadT<Products>(&products[at], ITEM_STRIDE);
        if is_first { sum = Products(); }
        for (var k = 0u; k < SLICE; k += EDGE) {
            let f = coopLoadT<Left>(&staged[row * SLICE_STRIDE + k], SLICE_STRIDE);
            let g = coopLoad<Right>(&staged[ITEM_ROWS + column * SLICE_STRIDE + k], SLICE_STRIDE);
            sum = coopMultiplyAdd(f, g, sum);
        }
        coopStoreT(sum, &products[at], ITEM_STRIDE);
    }
}

@compute @workgroup_size(PAIRS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32,
        @builtin(subgroup_id) subgroup: u32, @builtin(num_subgroups) subgroups: u32) {
    let tile = params.first_tile + group.y * params.tile_stride;
    let item = thread % TILE;
    let query = group.x * QUERIES_PER_WORKGROUP + thread / TILE;
    let query_base = min(query, params.n_queries - 1u) * QUERY_QUADS * 4u;
    let item_base = item_of(tile, item);

    var z: Logits;
    for (var m = 0u; m < ITEM_VECTORS; m++) {
        for (var depth = 0u; depth < DEPTH; depth += SLICE) {
            if m == 0u || DEPTH > SLICE { stage_queries(group.x, depth, thread); }
            stage_items(tile, m, depth, thread);
            workgroupBarrier();
            multiply(depth == 0u, subgroup, subgroups);
            workgroupBarrier();
        }
        let row = thread / TILE * QUERY_VECTORS;
        for (var n = 0u; n < QUERY_VECTORS; n++) { z[n * ITEM_VECTORS + m] = products[(row + n) * ITEM_STRIDE + item]; }
    }
    scale_logits(&z, query_base, item_base);
    for (var l = 0u; l < LOGIT_MATRICES * EDGE; l++) {
        var value = 0.0;
        if l < L { value = z[l]; }
        staged[l * PAIR_STRIDE + thread] = half(value);
    }
    workgroupBarrier();

    // Each subgroup has STRIP column tiles of the pairs to itself; subgroups smaller than the largest may leave some of them without
    // any. That is what the loops over `pair` are for: they end after at most one turn, and naga, which cannot know that a
    // subgroup takes a branch as a whole, refuses it as an `if`.
    let first = subgroup * STRIP * EDGE;
    var gate_sums: array<Products, LOGIT_MATRICES * STRIP>;
    for (var unit_matrix = 0u; unit_matrix < HIDDEN_MATRICES; unit_matrix++) {
        for (var pair = first; pair < PAIRS; pair += PAIRS) {
            var units: array<Products, STRIP>;
            for (var k = 0u; k < LOGIT_MATRICES; k++) {
                let w = coopLoadT<Left>(&halves[(unit_matrix * LOGIT_MATRICES + k) * MATRIX], EDGE);
                for (var s = 0u; s < STRIP; s++) {
                    let logits = coopLoadT<Right>(&staged[k * EDGE * PAIR_STRIDE + pair + s * EDGE], PAIR_STRIDE);
                    units[s] = coopMultiplyAdd(w, logits, units[s]);
                }
            }
            for (var s = 0u; s < STRIP; s++) { coopStoreT(units[s], &products[pair + s * EDGE], PAIR_STRIDE); }
        }
        workgroupBarrier();
        for (var u = 0u; u < EDGE; u++) {
            let unit = unit_matrix * EDGE + u;
            var a = 0.0;
            if unit < HIDDEN { a = products[u * PAIR_STRIDE + thread] + weights[L4 + unit * UNIT_QUADS].x; }
            staged[UNIT_ROWS + u * PAIR_STRIDE + thread] = half(a * sigmoid(a));
        }
        workgroupBarrier();
        for (var pair = first; pair < PAIRS; pair += PAIRS) {
            for (var l = 0u; l < LOGIT_MATRICES; l++) {
                let w = coopLoadT<Left>(&halves[((HIDDEN_MATRICES + unit_matrix) * LOGIT_MATRICES + l) * MATRIX], EDGE);
                for (var s = 0u; s < STRIP; s++) {
                    let units = coopLoadT<Right>(&staged[UNIT_ROWS + pair + s * EDGE], PAIR_STRIDE);
                    gate_sums[l * STRIP + s] = coopMultiplyAdd(w, units, gate_sums[l * STRIP + s]);
                }
            }
        }
    }
    // Over all logits where there is a linear part.
    for (var k = 0u; k < (LINEAR + EDGE - 1u) / EDGE; k++) {
        for (var pair = first; pair < PAIRS; pair += PAIRS) {
            for (var l = 0u; l < LOGIT_MATRICES; l++) {
                let w = coopLoadT<Left>(&halves[((2u * HIDDEN_MATRICES + k) * LOGIT_MATRICES + l) * MATRIX], EDGE);
                for (var s = 0u; s < STRIP; s++) {
                    let logits = coopLoadT<Right>(&staged[k * EDGE * PAIR_STRIDE + pair + s * EDGE], PAIR_STRIDE);
                    gate_sums[l * STRIP + s] = coopMultiplyAdd(w, logits, gate_sums[l * STRIP + s]);
                }
            }
        }
    }

    var g: Logits;
    for (var l = 0u; l < LOGIT_MATRICES; l++) {
        for (var pair = first; pair < PAIRS; pair += PAIRS) {
            for (var s = 0u; s < STRIP; s++) { coopStoreT(gate_sums[l * STRIP + s], &products[pair + s * EDGE], PAIR_STRIDE); }
        }
        workgroupBarrier();
        for (var i = 0u; i < EDGE; i++) {
            let at = l * EDGE + i;
            if at < L { g[at] = products[i * PAIR_STRIDE + thread] + weights[at / 4u][at % 4u]; }
        }
        workgroupBarrier();
    }
    offer_all(query, tile * TILE + item, Scores(mixture(&z, &g, query_base, item_base)));
}
