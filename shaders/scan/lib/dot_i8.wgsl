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
// loops end after GROUPS, D4 and BLOCKS turns
// needs constants BLOCKS, QUERY_WORDS, GROUPS, FIRST_GROUP, D4, SCALES, TRANSFORMED, NORMS; lib/items.wgsl; lib/per_query_*.wgsl; of
// the kernel: bindings queries, items

// Words of a vector whose sum cannot leave 32 bits: 512 * 32512 * 128 < 2^31. Sums of wider vectors are added as floats, in
// this order.
const PART: u32 = 128u;
const QUERY_SCALES: u32 = GROUPS * D4 * 2u;
const QUERY_BIASES: u32 = QUERY_SCALES + GROUPS;

// query_base: where the first of BLOCKS query blocks is.
fn dot_scores(query_base: u32, item_base: u32) -> Scores {
    var totals: Scores;
    // As in dot.wgsl.
    let walk = select(0u, query_base, BLOCKS == 1u && GROUPS > 1u);
    for (var i = walk; i < walk + GROUPS; i++) {
        let m = i - walk;
        let vector = select(FIRST_GROUP + m, 0u, TRANSFORMED);
        var sums: Scores;
        var high: array<PerQueryInt, BLOCKS>;
        var low: array<PerQueryInt, BLOCKS>;
        for (var d = 0u; d < D4; d++) {
            if D4 > PART && d > 0u && d % PART == 0u {
                for (var block = 0u; block < BLOCKS; block++) {
                    sums[block] += PerQuery(high[block] * 256 + low[block]);
                    high[block] = PerQueryInt(0);
                    low[block] = PerQueryInt(0);
                }
            }
            let x = items[quad_of_vector(item_base, vector, d)];
            for (var block = 0u; block < BLOCKS; block++) {
                let q = query_base + block * QUERY_WORDS + (m * D4 + d) * 2u;
                high[block] += dots(queries[q], x);
                low[block] += dots(queries[q + 1u], x);
            }
        }
        for (var block = 0u; block < BLOCKS; block++) {
            let words = query_base + block * QUERY_WORDS;
            var sum = sums[block] + PerQuery(high[block] * 256 + low[block]);
            sum *= number(item_base, SCALES, vector);
            sum *= bitcast<PerQuery>(queries[words + QUERY_SCALES + m]);
            if TRANSFORMED {
                sum += bitcast<PerQuery>(queries[words + QUERY_BIASES + m]);
                sum *= number(item_base, NORMS, FIRST_GROUP + m);
            }
            totals[block] += sum;
        }
    }
    return totals;
}
