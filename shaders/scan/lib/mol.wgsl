// mol: Mixture-of-Logits of one item and QUERIES_PER_THREAD queries, logits z and gate values g of each in registers: all L of them, or
// those of a section, as lib/whole.wgsl or lib/sections.wgsl says.
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
// weights: of each section, all for its own logits, in OWN4 quads: b2; for each of HIDDEN units b1 (zero but in the first section) and
//          three zeros, its column of W1 and its row of W2; rows of W: for each UNITS of LINEAR logits of a section those of each section
// twin src/backend/cpu/mol/kernel.rs
// loops end after D4, OWN_QUERY_VECTORS, OWN_ITEM_VECTORS, HIDDEN, SECTIONS, UNITS, OWN4 and 4 turns: all are constants
// needs constants TILE, QUERY_VECTORS, ITEM_VECTORS, OWN_QUERY_VECTORS, OWN_ITEM_VECTORS, P_X, OWN_X, D4, L, OWN4, HIDDEN, LINEAR, GATING, BOUND,
// TRANSFORMED, SCALED, QUERY_GATE, ITEM_GATE, RUN, QUERY_QUADS, QUERY_GATES, ITEM_QUADS, ITEM_GATES, SCALES, GATE_SCALE, NORMS;
// lib/items.wgsl; lib/per_query_*.wgsl; lib/whole.wgsl or lib/sections.wgsl; lib/pair.wgsl; of the kernel: bindings queries, items, weights
// and params.inverse_temperature
const EPSILON: f32 = 0x1p-23f;

const UNIT_QUADS: u32 = 1u + 2u * OWN4;
const LINEAR_QUADS: u32 = OWN4 + HIDDEN * UNIT_QUADS;
const SECTION_QUADS: u32 = LINEAR_QUADS + LINEAR * SECTIONS * OWN4;

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
    let first_query = query_base + first_query_vector() * D4 * 4u;
    var d = 0u;
    for (var first = first_query; first < first_query + D4 * 4u; first += 4u) {
        var x: array<vec4f, OWN_ITEM_VECTORS>;
        for (var m = 0u; m < OWN_ITEM_VECTORS; m++) {
            x[m] = unpacked(items[quad_of_vector(item_base, first_item_vector() + m, d)]);
        }
        d++;
        for (var n = 0u; n < OWN_QUERY_VECTORS; n++) {
            var vector = n;
            if TRANSFORMED { vector = n / OWN_X * P_X + n % OWN_X; }
            let q = first + vector * D4 * 4u;
            let f = array<PerQuery, 4>(queries[q], queries[q + 1u], queries[q + 2u], queries[q + 3u]);
            for (var m = 0u; m < OWN_ITEM_VECTORS; m++) {
                let j = n * OWN_ITEM_VECTORS + m;
                let sum = fma(f[1], PerQuery(x[m].y), fma(f[0], PerQuery(x[m].x), (*z)[j]));
                (*z)[j] = fma(f[3], PerQuery(x[m].w), fma(f[2], PerQuery(x[m].z), sum));
            }
        }
    }
    scale_logits(z, query_base, item_base);
}

// What the mixture cannot exceed: the largest logit, and a few units in the last place per logit for its rounding.
fn bounds_of(z: ptr<function, Logits>) -> PerQuery {
    var greatest = PerQuery(LEAST);
    var magnitude = PerQuery(0.0);
    for (var i = 0u; i < OWN4; i++) {
        for (var c = 0u; c < 4u; c++) {
            let j = i * 4u + c;
            if !is_own(j) { continue; }
            greatest = max(greatest, (*z)[j]);
            magnitude = max(magnitude, abs((*z)[j]));
        }
    }
    return fma(greatest_of_sections(magnitude), PerQuery(f32(4u * L + 16u) * EPSILON), greatest_of_sections(greatest));
}

fn mixtures_of(z: ptr<function, Logits>, query_base: u32, item_base: u32) -> PerQuery {
    let first = first_weight();
    var g: Logits;
    for (var i = 0u; i < OWN4; i++) {
        for (var c = 0u; c < 4u; c++) { g[i * 4u + c] = PerQuery(weights[first + i][c]); }
    }
    for (var h = 0u; h < HIDDEN; h += UNITS) {
        let unit = first + OWN4 + h * UNIT_QUADS;
        var own: Values;
        for (var u = 0u; u < UNITS; u++) { own[u] = unit_of_own(z, unit + u * UNIT_QUADS); }
        let all = exchanged(own);
        for (var u = 0u; u < UNITS; u++) {
            var a = all[0][u];
            for (var s = 1u; s < SECTIONS; s++) { a += all[s][u]; }
            a *= sigmoid(a);
            let row = unit + u * UNIT_QUADS + 1u + OWN4;
            for (var i = 0u; i < OWN4; i++) {
                let w = weights[row + i];
                g[i * 4u] = fma(PerQuery(w.x), a, g[i * 4u]);
                g[i * 4u + 1u] = fma(PerQuery(w.y), a, g[i * 4u + 1u]);
                g[i * 4u + 2u] = fma(PerQuery(w.z), a, g[i * 4u + 2u]);
                g[i * 4u + 3u] = fma(PerQuery(w.w), a, g[i * 4u + 3u]);
            }
        }
    }
    for (var j = 0u; j < LINEAR; j += UNITS) {
        let all = exchanged(values_of(z, j));
        for (var s = 0u; s < SECTIONS; s++) {
            for (var u = 0u; u < UNITS; u++) {
                let row = first + LINEAR_QUADS + (j * SECTIONS + s * UNITS + u) * OWN4;
                for (var i = 0u; i < OWN4; i++) {
                    let w = weights[row + i];
                    for (var c = 0u; c < 4u; c++) { g[i * 4u + c] = fma(PerQuery(w[c]), all[s][u], g[i * 4u + c]); }
                }
            }
        }
    }
    return mixture(z, &g, query_base, item_base);
}

// What the own logits contribute to a hidden unit, whose weights begin there.
fn unit_of_own(z: ptr<function, Logits>, unit: u32) -> PerQuery {
    let b = weights[unit];
    // The zeros are loaded: with constant ones a driver makes plain products of the first terms, then contracts some of
    // them with the sum below, which ones depending on QUERIES_PER_THREAD.
    var sums = array<PerQuery, 4>(PerQuery(b.x), PerQuery(b.y), PerQuery(b.z), PerQuery(b.w));
    for (var i = 0u; i < OWN4; i++) {
        let w = weights[unit + 1u + i];
        sums[0] = fma(PerQuery(w.x), (*z)[i * 4u], sums[0]);
        sums[1] = fma(PerQuery(w.y), (*z)[i * 4u + 1u], sums[1]);
        sums[2] = fma(PerQuery(w.z), (*z)[i * 4u + 2u], sums[2]);
        sums[3] = fma(PerQuery(w.w), (*z)[i * 4u + 3u], sums[3]);
    }
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}
