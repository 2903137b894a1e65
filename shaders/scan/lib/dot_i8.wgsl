// dot_i8: dot.wgsl for items of 8-bit integers and queries of quantize_queries.wgsl, in integers. The sums are exact, so no
// order of them shows; scales of queries are powers of two, so neither does a contraction of their products with what is
// added to them (of those with 1 / norm_m it may):
//
//     sum_m integers(q_m, v_m) * scale(v_m) * scale(q_m)
//     sum_m (integers(q_m, x) * scale(x) * scale(q_m) + b_m) / norm_m      if TRANSFORMED
//
// queries: words: GROUPS * D4 pairs of high and low bytes; then scales of q_m; then, if TRANSFORMED, b_m
// items:   vectors of D4 words each; from word SCALES on their scales; from word NORMS on the inverse norms of the
//          components, if TRANSFORMED
// twin src/backend/cpu/dot/int8_tile.rs
// loops end after GROUPS and D4 turns
// needs constants GROUPS, FIRST_GROUP, D4, SCALES, TRANSFORMED, NORMS; lib/items.wgsl; lib/per_query_*.wgsl; of the kernel:
// bindings queries, items

// Words of a vector whose sum cannot leave 32 bits: 512 * 32512 * 128 < 2^31. Sums of wider vectors are added as floats, in
// this order.
const PART: u32 = 128u;
const QUERY_SCALES: u32 = GROUPS * D4 * 2u;
const QUERY_BIASES: u32 = QUERY_SCALES + GROUPS;

fn dot_scores(query_base: u32, item_base: u32) -> PerQuery {
    var total = PerQuery(0.0);
    for (var m = 0u; m < GROUPS; m++) {
        let vector = select(FIRST_GROUP + m, 0u, TRANSFORMED);
        let first = item_base + vector * D4 * TILE;
        var sum = PerQuery(0.0);
        var high = PerQueryInt(0);
        var low = PerQueryInt(0);
        for (var d = 0u; d < D4; d++) {
            if D4 > PART && d > 0u && d % PART == 0u {
                sum += PerQuery(high * 256 + low);
                high = PerQueryInt(0);
                low = PerQueryInt(0);
            }
            let x = items[first + d * TILE];
            let q = query_base + (m * D4 + d) * 2u;
            high += dots(queries[q], x);
            low += dots(queries[q + 1u], x);
        }
        sum += PerQuery(high * 256 + low);
        sum *= number(item_base, SCALES, vector);
        sum *= bitcast<PerQuery>(queries[query_base + QUERY_SCALES + m]);
        if TRANSFORMED {
            sum += bitcast<PerQuery>(queries[query_base + QUERY_BIASES + m]);
            sum *= number(item_base, NORMS, FIRST_GROUP + m);
        }
        total += sum;
    }
    return total;
}
