// pair: what a thread does with the logits of one item and QUERIES_PER_THREAD queries besides matrix products.
//
// Loops over logits take four at a time: few enough turns each that compilers write them out, so that arrays are registers.
//
// queries, items: as lib/mol.wgsl says
// loops end after L4, ITEM_VECTORS, P_X and 4 turns
// needs what lib/mol.wgsl needs, without weights
const GLU_SILU: u32 = 0u;
const GLU_SILU_LN: u32 = 1u;
const SUM: u32 = 2u;
const LAYER_NORM_EPS: f32 = 1e-5;
const LEAST: f32 = -0x1.fffffep+127f;

alias Logits = array<PerQuery, L4 * 4u>;

// The argument of exp is bounded so that no driver meets an infinity.
fn sigmoid(x: PerQuery) -> PerQuery { return PerQuery(1.0) / (PerQuery(1.0) + exp(min(-x, PerQuery(80.0)))); }

// What turns products into logits: scales, biases, norms, the temperature.
fn scale_logits(z: ptr<function, Logits>, query_base: u32, item_base: u32) {
    var scales: array<f32, ITEM_VECTORS>;
    for (var m = 0u; m < ITEM_VECTORS && SCALED; m++) { scales[m] = number(item_base, SCALES, m); }
    var norms: array<f32, P_X>;
    for (var m = 0u; m < P_X && TRANSFORMED; m++) { norms[m] = number(item_base, NORMS, m); }
    for (var i = 0u; i < L4; i++) {
        for (var c = 0u; c < 4u; c++) {
            let l = i * 4u + c;
            if l >= L { continue; }
            if SCALED { (*z)[l] *= scales[l % ITEM_VECTORS]; }
            if TRANSFORMED {
                (*z)[l] += queries[query_base + QUERY_VECTORS * D4 * 4u + l];
                (*z)[l] *= norms[l % P_X];
            }
            (*z)[l] *= params.inverse_temperature;
        }
    }
}

// The mixture of the logits by the cross gate's values, which it changes.
fn mixture(z: ptr<function, Logits>, g: ptr<function, Logits>, query_base: u32, item_base: u32) -> PerQuery {
    // The one-sided parts: their product joins g, or, for SUM, each of them does. A missing part is left out.
    for (var i = 0u; i < L4; i++) {
        var x = vec4f(1.0);
        if ITEM_GATE { x = unpacked(items[quad_of(item_base, ITEM_GATES + i)]); }
        if ITEM_GATE && SCALED { x *= number(item_base, GATE_SCALE, 0u); }
        for (var c = 0u; c < 4u; c++) {
            let l = i * 4u + c;
            var q = PerQuery(1.0);
            if QUERY_GATE { q = queries[query_base + QUERY_GATES * 4u + l]; }
            if GATING != SUM && (QUERY_GATE || ITEM_GATE) { (*g)[l] = fma(q, PerQuery(x[c]), (*g)[l]); }
            if GATING == SUM && QUERY_GATE { (*g)[l] += q; }
            if GATING == SUM && ITEM_GATE { (*g)[l] += PerQuery(x[c]); }
        }
    }

    var mean = PerQuery(0.0);
    var scale = PerQuery(1.0);
    if GATING == GLU_SILU_LN {
        for (var i = 0u; i < L4; i++) {
            for (var c = 0u; c < 4u; c++) {
                let l = i * 4u + c;
                if l >= L { continue; }
                mean += (*g)[l];
            }
        }
        mean /= PerQuery(f32(L));
        var variance = PerQuery(0.0);
        for (var i = 0u; i < L4; i++) {
            for (var c = 0u; c < 4u; c++) {
                let l = i * 4u + c;
                if l >= L { continue; }
                variance = fma((*g)[l] - mean, (*g)[l] - mean, variance);
            }
        }
        scale = inverseSqrt(variance / PerQuery(f32(L)) + PerQuery(LAYER_NORM_EPS));
    }
    var greatest = PerQuery(LEAST);
    for (var i = 0u; i < L4; i++) {
        for (var c = 0u; c < 4u; c++) {
            let l = i * 4u + c;
            if l >= L { continue; }
            if GATING != SUM { (*g)[l] *= sigmoid(((*g)[l] - mean) * scale); }
            greatest = max(greatest, (*g)[l]);
        }
    }
    var total = PerQuery(0.0);
    var mixed = PerQuery(0.0);
    for (var i = 0u; i < L4; i++) {
        for (var c = 0u; c < 4u; c++) {
            let l = i * 4u + c;
            if l >= L { continue; }
            let e = exp((*g)[l] - greatest);
            total += e;
            mixed = fma(e, (*z)[l], mixed);
        }
    }
    return mixed / total;
}
