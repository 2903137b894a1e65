// dot: inner products of QUERIES_PER_THREAD queries and one item, summed over GROUPS vectors of each.
//
//     sum_m <q_m, v_m>                          v_m: vectors of the item from FIRST_GROUP on
//     sum_m (<q_m, x> + b_m) / norm_m           if TRANSFORMED: components that the only vector x stands for, and
//                                               q_m = W_m^T v_m, b_m = <v_m, bias_m> of the transformed query
//
// queries: GROUPS * D4 quads, then, if TRANSFORMED, b_m
// items:   vectors of D4 quads each; from quad NORMS on the inverse norms of the components, if TRANSFORMED
// twin src/backend/cpu/scan/dot_scan.rs
// loops end after GROUPS, D4 and 4 turns
// needs constants GROUPS, FIRST_GROUP, D4, TRANSFORMED, NORMS; lib/items.wgsl; lib/per_query_*.wgsl; of the kernel: bindings
// queries, items
fn dot_scores(query_base: u32, item_base: u32) -> PerQuery {
    var total = PerQuery(0.0);
    for (var m = 0u; m < GROUPS; m++) {
        let vector = select(FIRST_GROUP + m, 0u, TRANSFORMED);
        let first = item_base + vector * D4 * TILE;
        var sums = array<PerQuery, 4>(PerQuery(0.0), PerQuery(0.0), PerQuery(0.0), PerQuery(0.0));
        for (var d = 0u; d < D4; d++) {
            let x = unpacked(items[first + d * TILE]);
            let q = query_base + (m * D4 + d) * 4u;
            for (var c = 0u; c < 4u; c++) { sums[c] = fma(queries[q + c], PerQuery(x[c]), sums[c]); }
        }
        var sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        if TRANSFORMED {
            sum += queries[query_base + GROUPS * D4 * 4u + m];
            sum *= number(item_base, NORMS, FIRST_GROUP + m);
        }
        total += sum;
    }
    return total;
}
