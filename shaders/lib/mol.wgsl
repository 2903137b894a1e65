// mol: Mixture-of-Logits of one item and LANES queries, L logits z and L gate values g of each in registers.
//
//     z[n,m] = <f_n(q), g_m(x)> / temperature              dots of component embeddings
//     g      = q * x + W2 silu(W1 z + b1) + b2             gate; without hidden layer W2 z + b2
//     score  = sum_l softmax(w(g))_l z_l                   w by GATING
//
// queries: P_Q * D4 quads of components, then, if QUERY_GATE, L4 quads of the query-only gate part
// items:   P_X * D4 quads of components, then, if ITEM_GATE, L4 quads of the item-only gate part
// weights: b2 (L4 quads), then for every hidden unit, if CROSS_HIDDEN, b1 (1 quad, of which x counts) and its column of
//          W1 (L4 quads), and its row of W2 (L4 quads)
// twin src/backend/cpu/mol_scan.rs
// needs constants TILE, P_Q, P_X, D4, L, L4, HIDDEN, CROSS_HIDDEN, QUERY_GATE, ITEM_GATE, GATING; lib/table_*.wgsl;
// lib/lanes_*.wgsl; of the kernel: bindings queries, items, weights and params.inverse_temperature
const GLU_SILU: u32 = 0u;
const GLU_SILU_LN: u32 = 1u;
const SUM: u32 = 2u;
const LAYER_NORM_EPS: f32 = 1e-5;

const QUERY_QUADS: u32 = P_Q * D4 + select(0u, L4, QUERY_GATE);
const ITEM_QUADS: u32 = P_X * D4 + select(0u, L4, ITEM_GATE);
const UNIT_QUADS: u32 = L4 + select(0u, L4 + 1u, CROSS_HIDDEN);

// The argument of exp is bounded so that no driver meets an infinity.
fn sigmoid(x: Lanes) -> Lanes { return Lanes(1.0) / (Lanes(1.0) + exp(min(-x, Lanes(80.0)))); }

// query_base and item_base: where the first value of the query block, and the first quad of the item, are.
fn mol_scores(query_base: u32, item_base: u32) -> Lanes {
    var z: array<Lanes, L4 * 4u>;
    for (var d = 0u; d < D4; d++) {
        var x: array<vec4f, P_X>;
        for (var m = 0u; m < P_X; m++) { x[m] = unpacked(items[item_base + (m * D4 + d) * TILE]); }
        for (var n = 0u; n < P_Q; n++) {
            let q = query_base + (n * D4 + d) * 4u;
            let f = array<Lanes, 4>(queries[q], queries[q + 1u], queries[q + 2u], queries[q + 3u]);
            for (var m = 0u; m < P_X; m++) {
                let l = n * P_X + m;
                let sum = fma(f[1], Lanes(x[m].y), fma(f[0], Lanes(x[m].x), z[l]));
                z[l] = fma(f[3], Lanes(x[m].w), fma(f[2], Lanes(x[m].z), sum));
            }
        }
    }
    var g: array<Lanes, L4 * 4u>;
    for (var i = 0u; i < L4; i++) {
        for (var c = 0u; c < 4u; c++) {
            z[i * 4u + c] *= params.inverse_temperature;
            g[i * 4u + c] = Lanes(weights[i][c]);
        }
    }

    for (var h = 0u; h < HIDDEN; h++) {
        let unit = L4 + h * UNIT_QUADS;
        var a: Lanes;
        if CROSS_HIDDEN {
            var sums = array<Lanes, 4>(Lanes(weights[unit].x), Lanes(0.0), Lanes(0.0), Lanes(0.0));
            for (var i = 0u; i < L4; i++) {
                let w = weights[unit + 1u + i];
                sums[0] = fma(Lanes(w.x), z[i * 4u], sums[0]);
                sums[1] = fma(Lanes(w.y), z[i * 4u + 1u], sums[1]);
                sums[2] = fma(Lanes(w.z), z[i * 4u + 2u], sums[2]);
                sums[3] = fma(Lanes(w.w), z[i * 4u + 3u], sums[3]);
            }
            a = (sums[0] + sums[1]) + (sums[2] + sums[3]);
            a *= sigmoid(a);
        } else {
            a = z[h];
        }
        let row = unit + UNIT_QUADS - L4;
        for (var i = 0u; i < L4; i++) {
            let w = weights[row + i];
            g[i * 4u] = fma(Lanes(w.x), a, g[i * 4u]);
            g[i * 4u + 1u] = fma(Lanes(w.y), a, g[i * 4u + 1u]);
            g[i * 4u + 2u] = fma(Lanes(w.z), a, g[i * 4u + 2u]);
            g[i * 4u + 3u] = fma(Lanes(w.w), a, g[i * 4u + 3u]);
        }
    }

    // The one-sided parts: their product joins g, or, for SUM, each of them does. A missing part is left out.
    for (var i = 0u; i < L4; i++) {
        var x = vec4f(1.0);
        if ITEM_GATE { x = unpacked(items[item_base + (P_X * D4 + i) * TILE]); }
        for (var c = 0u; c < 4u; c++) {
            let l = i * 4u + c;
            var q = Lanes(1.0);
            if QUERY_GATE { q = queries[query_base + P_Q * D4 * 4u + l]; }
            if GATING != SUM && (QUERY_GATE || ITEM_GATE) { g[l] = fma(q, Lanes(x[c]), g[l]); }
            if GATING == SUM && QUERY_GATE { g[l] += q; }
            if GATING == SUM && ITEM_GATE { g[l] += Lanes(x[c]); }
        }
    }

    var mean = Lanes(0.0);
    var scale = Lanes(1.0);
    if GATING == GLU_SILU_LN {
        for (var l = 0u; l < L; l++) { mean += g[l]; }
        mean /= Lanes(f32(L));
        var variance = Lanes(0.0);
        for (var l = 0u; l < L; l++) { variance = fma(g[l] - mean, g[l] - mean, variance); }
        scale = inverseSqrt(variance / Lanes(f32(L)) + Lanes(LAYER_NORM_EPS));
    }
    var greatest = Lanes(-0x1.fffffep+127f);
    for (var l = 0u; l < L; l++) {
        if GATING != SUM { g[l] *= sigmoid((g[l] - mean) * scale); }
        greatest = max(greatest, g[l]);
    }
    var total = Lanes(0.0);
    var mixed = Lanes(0.0);
    for (var l = 0u; l < L; l++) {
        let e = exp(g[l] - greatest);
        total += e;
        mixed = fma(e, z[l], mixed);
    }
    return mixed / total;
}
