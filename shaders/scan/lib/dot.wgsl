// dot: inner products of BLOCKS * QUERIES_PER_THREAD queries and one item, summed over GROUPS vectors of each.
//
//     sum_m <q_m, v_m>                          v_m: vectors of the item from FIRST_GROUP on
//     sum_m (<q_m, x> + b_m) / norm_m           if TRANSFORMED: components that the only vector x stands for, and
//                                               q_m = W_m^T v_m, b_m = <v_m, bias_m> of the transformed query
//
// queries: GROUPS * D4 quads, then, if TRANSFORMED, b_m
// items:   vectors of D4 quads each; from quad NORMS on the inverse norms of the components, if TRANSFORMED
// twin src/backend/cpu/scan/dot_scan.rs
// loops end after GROUPS, D4, BLOCKS and 4 turns
// needs constants BLOCKS, QUERY_WORDS, GROUPS, FIRST_GROUP, D4, TRANSFORMED, NORMS; lib/items.wgsl; lib/per_query_*.wgsl; of the
// kernel: bindings queries, items

// query_base: where the first of BLOCKS query blocks is.
fn dot_scores(query_base: u32, item_base: u32) -> Scores {
    var totals: Scores;
    // From a number that compilers do not know where there are few queries: they would write out a loop over constants, and then give each of
    // many loads an address of its own.
    let walk = select(0u, query_base, BLOCKS == 1u && GROUPS > 1u);
    for (var i = walk; i < walk + GROUPS; i++) {
        let m = i - walk;
        let vector = select(FIRST_GROUP + m, 0u, TRANSFORMED);
        var sums: array<array<PerQuery, 4>, BLOCKS>;
        for (var d = 0u; d < D4; d++) {
            let x = unpacked(items[quad_of_vector(item_base, vector, d)]);
            let q = query_base + (m * D4 + d) * 4u;
            for (var block = 0u; block < BLOCKS; block++) {
                for (var c = 0u; c < 4u; c++) {
                    sums[block][c] = fma(queries[q + block * QUERY_WORDS + c], PerQuery(x[c]), sums[block][c]);
                }
            }
        }
        for (var block = 0u; block < BLOCKS; block++) {
            var sum = (sums[block][0] + sums[block][1]) + (sums[block][2] + sums[block][3]);
            if TRANSFORMED {
                sum += queries[query_base + block * QUERY_WORDS + GROUPS * D4 * 4u + m];
                sum *= number(item_base, NORMS, FIRST_GROUP + m);
            }
            totals[block] += sum;
        }
    }
    return totals;
}
