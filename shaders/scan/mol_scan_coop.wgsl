// mol_scan_coop: mol_scan by cooperative matrices. A workgroup scores QUERIES_PER_WORKGROUP queries and the items of a tile, one pair a
// thread; products are of halves, and summed in f32:
//
//     Z_m = F G_m^T                  rows: vectors of the queries; columns: the items, by their vector m; by SLICE of depth
//     A   = silu(W1 Z + b1)          columns: the pairs; EDGE hidden units at a time
//     G   = W2 A + W Z + b2
//
// What is rounded to a half: query vectors, weights, the logits that enter the gate, A. The logits that are mixed, biases, the
// one-sided gate parts and the softmax are as in mol_scan. With PARTS = 2, for tables of f32, what is multiplied is the sum of two halves,
// h + l / LOW, and a product is h h' + (h l' + l h') / LOW; l l' is left out.
//
// The column tiles of the pairs go around the subgroups, however many there are; STRIP is enough for as few as there can be. That
// is what the loops over `pair` and `again` are for: they end after at most one turn, and naga, which cannot know that a subgroup takes
// a branch as a whole, refuses it as an `if`.
//
// Atomics on storage have the scope of the device. Beside cooperative matrices, which bring Vulkan's memory model, that needs
// vulkanMemoryModelDeviceScope: wgpu has cooperative matrices only where a driver has it, and asks for it; naga does not declare the
// capability that goes with it.
// in  7 weights, of which only biases are read    8 halves: tiles of EDGE * EDGE, row-major: W1 (hidden units / EDGE, logits /
//     EDGE), W2 (hidden units / EDGE, logits / EDGE), W (logits / EDGE, logits / EDGE), the last two transposed inside; then the same of l
// loops end after numbers of turns that are constants; those over `pair` and `again` after at most one
// grid (query blocks, tiles of the chunk)   twin src/backend/cpu/scan/mol_scan.rs
// needs constants QUERIES_PER_WORKGROUP, ROWS (query vectors, in whole tiles), DEPTH (of a vector, in whole tiles), SLICE, LOGIT_MATRICES,
// HIDDEN_MATRICES, STRIP (column tiles of a subgroup), PARTS, STAGED and HALVES (of one part), PRODUCTS, and those of lib/mol.wgsl;
// lib/matrices_*.wgsl; lib/per_query_1.wgsl; lib/whole.wgsl; lib/pair.wgsl; lib/chunk.wgsl
@group(0) @binding(7) var<storage, read> weights: array<vec4f>;
@group(0) @binding(8) var<storage, read> halves: array<f16>;

const PAIRS: u32 = QUERIES_PER_WORKGROUP * TILE;
const MATRIX: u32 = EDGE * EDGE;
const UNIT_QUADS: u32 = 1u + 2u * L4;

// By what l is multiplied, which makes it about as large as h: what is smaller than the smallest normal half may count as zero.
const LOW: f32 = 2048.0;

// Rows of matrices in workgroup memory; the padding puts the rows of a tile into different banks.
const PAIR_STRIDE: u32 = PAIRS + 8u;
const ITEM_STRIDE: u32 = TILE + 8u;
const SLICE_STRIDE: u32 = SLICE + 8u;

// Query vectors (ROWS, SLICE) and behind them item vectors (TILE, SLICE); later logits (LOGIT_MATRICES * EDGE, PAIRS) and behind them
// hidden units (EDGE, PAIRS). All of h, then all of l.
var<workgroup> staged: array<f16, PARTS * STAGED>;
// Products (ROWS, TILE); later those of hidden units or of gate values (EDGE, PAIRS).
var<workgroup> products: array<f32, PRODUCTS>;

const ITEM_ROWS: u32 = ROWS * SLICE_STRIDE;
const UNIT_ROWS: u32 = LOGIT_MATRICES * EDGE * PAIR_STRIDE;

fn half(x: f32) -> f16 { return f16(clamp(x, -65504.0, 65504.0)); }

// Puts a value there that is to be multiplied.
fn stage(at: u32, x: f32) {
    staged[at] = half(x);
    if PARTS == 1u { return; }
    // Rounded by integers: compilers drop a conversion to a half and back.
    let high = bitcast<f32>((bitcast<u32>(x) + 0x1000u) & 0xffffe000u);
    staged[at] = half(high);
    staged[STAGED + at] = half((x - high) * LOW);
}

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
        stage(row * SLICE_STRIDE + i % SLICE, value);
    }
}

// Vectors `m` of the tile's items, from depth `depth` on. Threads side by side take quads of an item, as they lie in memory.
fn stage_items(tile: u32, m: u32, depth: u32, thread: u32) {
    for (var i = thread; i < SLICE / 4u * TILE; i += PAIRS) {
        let item = i / (SLICE / 4u);
        let quad = i % (SLICE / 4u);
        var x = vec4f(0.0);
        if depth / 4u + quad < D4 { x = unpacked(items[quad_of_vector(item_of(tile, item), m, depth / 4u + quad)]); }
        for (var c = 0u; c < 4u; c++) { stage(ITEM_ROWS + item * SLICE_STRIDE + quad * 4u + c, x[c]); }
    }
}

// Products of what is staged, from depth `depth` on; those of further slices are added to the first ones.
fn multiply(depth: u32, subgroup: u32, subgroups: u32) {
    for (var t = subgroup; t < ROWS / EDGE * (TILE / EDGE); t += subgroups) {
        let row = t / (TILE / EDGE) * EDGE;
        let column = t % (TILE / EDGE) * EDGE;
        let at = row * ITEM_STRIDE + column;
        var sum: Products;
        var low_sum: Products;
        for (var again = 0u; again < min(depth, 1u); again++) {
            sum = coopLoadT<Products>(&products[at], ITEM_STRIDE);
        }
        for (var k = 0u; k < SLICE; k += EDGE) {
            let f_at = row * SLICE_STRIDE + k;
            let g_at = ITEM_ROWS + column * SLICE_STRIDE + k;
            let f = coopLoadT<Left>(&staged[f_at], SLICE_STRIDE);
            let g = coopLoad<Right>(&staged[g_at], SLICE_STRIDE);
            sum = coopMultiplyAdd(f, g, sum);
            if PARTS == 2u {
                let f_low = coopLoadT<Left>(&staged[STAGED + f_at], SLICE_STRIDE);
                let g_low = coopLoad<Right>(&staged[STAGED + g_at], SLICE_STRIDE);
                low_sum = coopMultiplyAdd(f_low, g, coopMultiplyAdd(f, g_low, low_sum));
            }
        }
        if PARTS == 2u { sum = sum + low_sum * (1.0 / LOW); }
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
            multiply(depth, subgroup, subgroups);
            workgroupBarrier();
        }
        let row = thread / TILE * QUERY_VECTORS;
        for (var n = 0u; n < QUERY_VECTORS; n++) { z[n * ITEM_VECTORS + m] = products[(row + n) * ITEM_STRIDE + item]; }
    }
    scale_logits(&z, query_base, item_base);
    for (var l = 0u; l < LOGIT_MATRICES * EDGE; l++) {
        var value = 0.0;
        if l < L { value = z[l]; }
        stage(l * PAIR_STRIDE + thread, value);
    }
    workgroupBarrier();

    var sums: array<Products, LOGIT_MATRICES * STRIP>;
    for (var unit_matrix = 0u; unit_matrix < HIDDEN_MATRICES; unit_matrix++) {
        var units: array<Products, STRIP>;
        var low_units: array<Products, STRIP>;
        for (var k = 0u; k < LOGIT_MATRICES; k++) {
            let w_at = (unit_matrix * LOGIT_MATRICES + k) * MATRIX;
            let w = coopLoadT<Left>(&halves[w_at], EDGE);
            let w_low = coopLoadT<Left>(&halves[(PARTS - 1u) * HALVES + w_at], EDGE);
            for (var s = 0u; s < STRIP; s++) {
                for (var pair = (subgroup + s * subgroups) * EDGE; pair < PAIRS; pair += PAIRS) {
                    let at = k * EDGE * PAIR_STRIDE + pair;
                    let logits = coopLoadT<Right>(&staged[at], PAIR_STRIDE);
                    units[s] = coopMultiplyAdd(w, logits, units[s]);
                    if PARTS == 2u {
                        let low = coopLoadT<Right>(&staged[STAGED + at], PAIR_STRIDE);
                        low_units[s] = coopMultiplyAdd(w_low, logits, coopMultiplyAdd(w, low, low_units[s]));
                    }
                }
            }
        }
        for (var s = 0u; s < STRIP; s++) {
            for (var pair = (subgroup + s * subgroups) * EDGE; pair < PAIRS; pair += PAIRS) {
                if PARTS == 2u { units[s] = units[s] + low_units[s] * (1.0 / LOW); }
                coopStoreT(units[s], &products[pair], PAIR_STRIDE);
            }
        }
        workgroupBarrier();
        for (var u = 0u; u < EDGE; u++) {
            let unit = unit_matrix * EDGE + u;
            var a = 0.0;
            if unit < HIDDEN { a = products[u * PAIR_STRIDE + thread] + weights[L4 + unit * UNIT_QUADS].x; }
            stage(UNIT_ROWS + u * PAIR_STRIDE + thread, a * sigmoid(a));
        }
        workgroupBarrier();
        for (var l = 0u; l < LOGIT_MATRICES; l++) {
            let w_at = ((HIDDEN_MATRICES + unit_matrix) * LOGIT_MATRICES + l) * MATRIX;
            let w = coopLoadT<Left>(&halves[w_at], EDGE);
            let w_low = coopLoadT<Left>(&halves[(PARTS - 1u) * HALVES + w_at], EDGE);
            for (var s = 0u; s < STRIP; s++) {
                for (var pair = (subgroup + s * subgroups) * EDGE; pair < PAIRS; pair += PAIRS) {
                    let i = l * STRIP + s;
                    let units = coopLoadT<Right>(&staged[UNIT_ROWS + pair], PAIR_STRIDE);
                    sums[i] = coopMultiplyAdd(w, units, sums[i]);
                    if PARTS == 2u {
                        let low = coopLoadT<Right>(&staged[STAGED + UNIT_ROWS + pair], PAIR_STRIDE);
                        sums[i] = sums[i] + coopMultiplyAdd(w_low, units, coopMultiplyAdd(w, low, Products())) * (1.0 / LOW);
                    }
                }
            }
        }
    }
    // Over all logits where there is a linear part.
    for (var k = 0u; k < (LINEAR + EDGE - 1u) / EDGE; k++) {
        for (var l = 0u; l < LOGIT_MATRICES; l++) {
            let w_at = ((2u * HIDDEN_MATRICES + k) * LOGIT_MATRICES + l) * MATRIX;
            let w = coopLoadT<Left>(&halves[w_at], EDGE);
            let w_low = coopLoadT<Left>(&halves[(PARTS - 1u) * HALVES + w_at], EDGE);
            for (var s = 0u; s < STRIP; s++) {
                for (var pair = (subgroup + s * subgroups) * EDGE; pair < PAIRS; pair += PAIRS) {
                    let i = l * STRIP + s;
                    let at = k * EDGE * PAIR_STRIDE + pair;
                    let logits = coopLoadT<Right>(&staged[at], PAIR_STRIDE);
                    sums[i] = coopMultiplyAdd(w, logits, sums[i]);
                    if PARTS == 2u {
                        let low = coopLoadT<Right>(&staged[STAGED + at], PAIR_STRIDE);
                        sums[i] = sums[i] + coopMultiplyAdd(w_low, logits, coopMultiplyAdd(w, low, Products())) * (1.0 / LOW);
                    }
                }
            }
        }
    }

    var g: Logits;
    for (var l = 0u; l < LOGIT_MATRICES; l++) {
        for (var s = 0u; s < STRIP; s++) {
            for (var pair = (subgroup + s * subgroups) * EDGE; pair < PAIRS; pair += PAIRS) {
                coopStoreT(sums[l * STRIP + s], &products[pair], PAIR_STRIDE);
            }
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
