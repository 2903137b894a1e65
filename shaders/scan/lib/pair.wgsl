// pair: what a thread does with the logits of one item and QUERIES_PER_THREAD queries besides matrix products.
//
// Loops over logits take four at a time: few enough turns each that compilers write them out, so that arrays are registers.
//
// queries, items: as lib/mol.wgsl says
// loops end after OWN4, OWN_ITEM_VECTORS, OWN_X, SECTIONS and 4 turns
// needs what lib/mol.wgsl needs, without weights, and of it nothing but lib/whole.wgsl or lib/sections.wgsl
const GLU_SILU: u32 = 0u;
const GLU_SILU_LN: u32 = 1u;
const SUM: u32 = 2u;
const LAYER_NORM_EPS: f32 = 1e-5;
const LEAST: f32 = -0x1.fffffep+127f;

alias Logits = array<PerQuery, OWN4 * 4u>;

// The argument of exp is bounded so that no driver meets an infinity.
fn sigmoid(x: PerQuery) -> PerQuery { return PerQuery(1.0) / (PerQuery(1.0) + exp(min(-x, PerQuery(80.0)))); }

// The sum of a value over the sections of a pair.
fn sum_of_sections(value: PerQuery) -> PerQuery {
    var own: Values;
    own[0] = value;
    let all = exchanged(own);
    var total = all[0][0];
    for (var s = 1u; s < SECTIONS; s++) { total += all[s][0]; }
    return total;
}

// The greatest of the values of the sections of a pair.
fn greatest_of_sections(value: PerQuery) -> PerQuery {
    var own: Values;
    own[0] = value;
    let all = exchanged(own);
    var greatest = all[0][0];
    for (var s = 1u; s < SECTIONS; s++) { greatest = max(greatest, all[s][0]); }
    return greatest;
}

// What turns products into logits: scales, biases, norms, the temperature.
fn scale_logits(z: ptr<function, Logits>, query_base: u32, item_base: u32) {
    var scales: array<f32, OWN_ITEM_VECTORS>;
    for (var m = 0u; m < OWN_ITEM_VECTORS && SCALED; m++) { scales[m] = number(item_base, SCALES, first_item_vector() + m); }
    var norms: array<f32, OWN_X>;
    for (var m = 0u; m < OWN_X && TRANSFORMED; m++) { norms[m] = number(item_base, NORMS, first_norm() + m); }
    for (var i = 0u; i < OWN4; i++) {
        for (var c = 0u; c < 4u; c++) {
            let j = i * 4u + c;
            if !is_own(j) { continue; }
            if SCALED { (*z)[j] *= scales[j % OWN_ITEM_VECTORS]; }
            if TRANSFORMED {
                (*z)[j] += queries[query_base + QUERY_VECTORS * D4 * 4u + logit_of(j)];
                (*z)[j] *= norms[j % OWN_X];
            }
            (*z)[j] *= params.inverse_temperature;
        }
    }
}

// The mixture of the logits by the cross gate's values, which it changes.
fn mixture(z: ptr<function, Logits>, g: ptr<function, Logits>, query_base: u32, item_base: u32) -> PerQuery {
    // The one-sided parts: their product joins g, or, for SUM, each of them does. A missing part is left out.
    for (var i = 0u; i < OWN4; i++) {
        var x = vec4f(1.0);
        if ITEM_GATE { x = item_gates(item_base, i); }
        if ITEM_GATE && SCALED { x *= number(item_base, GATE_SCALE, 0u); }
        for (var c = 0u; c < 4u; c++) {
            let j = i * 4u + c;
            var q = PerQuery(1.0);
            if QUERY_GATE { q = queries[query_base + QUERY_GATES * 4u + logit_of(j)]; }
            if GATING != SUM && (QUERY_GATE || ITEM_GATE) { (*g)[j] = fma(q, PerQuery(x[c]), (*g)[j]); }
            if GATING == SUM && QUERY_GATE { (*g)[j] += q; }
            if GATING == SUM && ITEM_GATE { (*g)[j] += PerQuery(x[c]); }
        }
    }

    var mean = PerQuery(0.0);
    var scale = PerQuery(1.0);
    if GATING == GLU_SILU_LN {
        for (var i = 0u; i < OWN4; i++) {
            for (var c = 0u; c < 4u; c++) {
                let j = i * 4u + c;
                if !is_own(j) { continue; }
                mean += (*g)[j];
            }
        }
        mean = sum_of_sections(mean) / PerQuery(f32(L));
        var variance = PerQuery(0.0);
        for (var i = 0u; i < OWN4; i++) {
            for (var c = 0u; c < 4u; c++) {
                let j = i * 4u + c;
                if !is_own(j) { continue; }
                variance = fma((*g)[j] - mean, (*g)[j] - mean, variance);
            }
        }
        scale = inverseSqrt(sum_of_sections(variance) / PerQuery(f32(L)) + PerQuery(LAYER_NORM_EPS));
    }
    var greatest = PerQuery(LEAST);
    for (var i = 0u; i < OWN4; i++) {
        for (var c = 0u; c < 4u; c++) {
            let j = i * 4u + c;
            if !is_own(j) { continue; }
            if GATING != SUM { (*g)[j] *= sigmoid(((*g)[j] - mean) * scale); }
            greatest = max(greatest, (*g)[j]);
        }
    }
    greatest = greatest_of_sections(greatest);
    var total = PerQuery(0.0);
    var mixed = PerQuery(0.0);
    for (var i = 0u; i < OWN4; i++) {
        for (var c = 0u; c < 4u; c++) {
            let j = i * 4u + c;
            if !is_own(j) { continue; }
            let e = exp((*g)[j] - greatest);
            total += e;
            mixed = fma(e, (*z)[j], mixed);
        }
    }
    return sum_of_sections(mixed) / sum_of_sections(total);
}
