// mol: Mixture-of-Logits of one item and QUERIES_PER_THREAD queries, L logits z and L gate values g of each in registers.
//
//     z[n,m] = <f_n(q), g_m(x)> / temperature              dots of component embeddings
//     g      = q * x + W2 silu(W1 z + b1) + W z + b2       gate; the hidden or the linear part may be missing
//     score  = sum_l softmax(w(g))_l z_l                   w by GATING
//
// TRANSFORMED: the item is its raw embedding x and the norms of its components; with t_l = W_m^T f_n and b_l = <f_n, bias_m>
//
//     z[n,m] = (<t_l(q), x> + b_l(q)) / (norm_m(x) temperature)
//
// queries: QUERY_VECTORS * D4 quads of f or t; if TRANSFORMED, L4 quads of b; if QUERY_GATE, from quad QUERY_GATES on,
//          L4 quads of the query-only gate part
// items:   ITEM_VECTORS * D4 quads of g or x; if ITEM_GATE, from quad ITEM_GATES on, the item-only gate part; if SCALED, from quad
//          SCALES on the scales of the vectors and in quad GATE_SCALE that of the gate part; if TRANSFORMED, from quad
//          NORMS on the inverse norms
// weights: b2 (L4 quads); for each of HIDDEN units b1 and three zeros, its column of W1 (L4 quads) and its
//          row of W2 (L4 quads); for each of LINEAR logits its row of W (L4 quads)
// twin src/backend/cpu/mol/kernel.rs
// loops end after D4, QUERY_VECTORS, ITEM_VECTORS, HIDDEN, LINEAR, L and L4 turns: all are constants
// needs constants TILE, QUERY_VECTORS, ITEM_VECTORS, P_X, D4, L, L4, HIDDEN, LINEAR, GATING, BOUND, TRANSFORMED, SCALED,
// QUERY_GATE, ITEM_GATE, RUN, QUERY_QUADS, QUERY_GATES, ITEM_QUADS, ITEM_GATES, SCALES, GATE_SCALE, NORMS; lib/items.wgsl; lib/per_query_*.wgsl;
// lib/pair.wgsl; of the kernel: bindings queries, items, weights and params.inverse_temperature
const EPSILON: f32 = 0x1p-23f;

const UNIT_QUADS: u32 = 1u + 2u * L4;
const LINEAR_QUADS: u32 = L4 + HIDDEN * UNIT_QUADS;

// query_base and item_base: where the first value of the query block, and the first quad of the item, are.
fn mol_scores(query_base: u32, item_base: u32) -> PerQuery {
    var z: Logits;
    add_logits(&z, query_base, item_base);
    if BOUND { return bounds_of(&z); }
    return mixtures_of(&z, query_base, item_base);
}

// Adds the logits to zeros. The loop over D4 walks along an address: written out, as compilers do when they see how short it is,
// it takes more scalar registers than there are.
fn add_logits(z: ptr<function, Logits>, query_base: u32, item_base: u32) {
    var d = 0u;
    for (var first = query_base; first < query_base + D4 * 4u; first += 4u) {
        var x: array<vec4f, ITEM_VECTORS>;
        for (var m = 0u; m < ITEM_VECTORS; m++) { x[m] = unpacked(items[quad_of_vector(item_base, m, d)]); }
        d++;
        for (var n = 0u; n < QUERY_VECTORS; n++) {
            let q = first + n * D4 * 4u;
            let f = array<PerQuery, 4>(queries[q], queries[q + 1u], queries[q + 2u], queries[q + 3u]);
            for (var m = 0u; m < ITEM_VECTORS; m++) {
                let l = n * ITEM_VECTORS + m;
                let sum = fma(f[1], PerQuery(x[m].y), fma(f[0], PerQuery(x[m].x), (*z)[l]));
                (*z)[l] = fma(f[3], PerQuery(x[m].w), fma(f[2], PerQuery(x[m].z), sum));
            }
        }
    }
    scale_logits(z, query_base, item_base);
}

// What the mixture cannot exceed: the largest logit, and a few units in the last place per logit for its rounding.
fn bounds_of(z: ptr<function, Logits>) -> PerQuery {
    var greatest = PerQuery(LEAST);
    var magnitude = PerQuery(0.0);
    for (var i = 0u; i < L4; i++) {
        for (var c = 0u; c < 4u; c++) {
            let l = i * 4u + c;
            if l >= L { continue; }
            greatest = max(greatest, (*z)[l]);
            magnitude = max(magnitude, abs((*z)[l]));
        }
    }
    return fma(magnitude, PerQuery(f32(4u * L + 16u) * EPSILON), greatest);
}

fn mixtures_of(z: ptr<function, Logits>, query_base: u32, item_base: u32) -> PerQuery {
    var g: Logits;
    for (var i = 0u; i < L4; i++) {
        for (var c = 0u; c < 4u; c++) { g[i * 4u + c] = PerQuery(weights[i][c]); }
    }
    for (var h = 0u; h < HIDDEN; h++) {
        let unit = L4 + h * UNIT_QUADS;
        let b = weights[unit];
        // The zeros are loaded: with constant ones a driver makes plain products of the first terms, then contracts some of
        // them with the sum below, which ones depending on QUERIES_PER_THREAD.
        var sums = array<PerQuery, 4>(PerQuery(b.x), PerQuery(b.y), PerQuery(b.z), PerQuery(b.w));
        for (var i = 0u; i < L4; i++) {
            let w = weights[unit + 1u + i];
            sums[0] = fma(PerQuery(w.x), (*z)[i * 4u], sums[0]);
            sums[1] = fma(PerQuery(w.y), (*z)[i * 4u + 1u], sums[1]);
            sums[2] = fma(PerQuery(w.z), (*z)[i * 4u + 2u], sums[2]);
            sums[3] = fma(PerQuery(w.w), (*z)[i * 4u + 3u], sums[3]);
        }
        var a = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        a *= sigmoid(a);
        for (var i = 0u; i < L4; i++) {
            let w = weights[unit + 1u + L4 + i];
            g[i * 4u] = fma(PerQuery(w.x), a, g[i * 4u]);
            g[i * 4u + 1u] = fma(PerQuery(w.y), a, g[i * 4u + 1u]);
            g[i * 4u + 2u] = fma(PerQuery(w.z), a, g[i * 4u + 2u]);
            g[i * 4u + 3u] = fma(PerQuery(w.w), a, g[i * 4u + 3u]);
        }
    }
    for (var l = 0u; l < LINEAR; l++) {
        for (var i = 0u; i < L4; i++) {
            let w = weights[LINEAR_QUADS + l * L4 + i];
            for (var c = 0u; c < 4u; c++) { g[i * 4u + c] = fma(PerQuery(w[c]), (*z)[l], g[i * 4u + c]); }
        }
    }
    return mixture(z, &g, query_base, item_base);
}
