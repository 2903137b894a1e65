// max_sim: the score of one query and one item by late interaction. A workgroup has the pair; its threads take the vectors of the item
// by turns, and multiply each with AT_ONCE vectors of the query at a time.
//
//     sum_i max_j <q_i, x_j>        i: vectors of the query, in order; j: vectors of the item
//
// queries: the vectors of a query fill whole blocks of AT_ONCE, padded with what is not looked at
// items:   vectors, those of an item one after the other
// twin src/backend/cpu/max_sim/query_lanes.rs
// loops end at the vectors of the query and of the item, and after 6 and BLOCKS turns
// needs constants TILE, BLOCKS, QUERY_WORDS; lib/dot.wgsl or lib/dot_i8.wgsl and what these need
const AT_ONCE: u32 = BLOCKS * QUERIES_PER_THREAD;

// No product is less.
const LEAST: f32 = -3.4e38;

var<workgroup> maxima: array<Scores, TILE>;

// The score, on thread 0. query: number of its first block, and of its vectors. rows: the first vector of the item, and the end.
fn max_sim(query: vec2u, rows: vec2u, thread: u32) -> f32 {
    var sum = 0.0;
    for (var first = 0u; first < query.y; first += AT_ONCE) {
        var best: Scores;
        for (var block = 0u; block < BLOCKS; block++) { best[block] = PerQuery(LEAST); }
        let query_base = (query.x + first / AT_ONCE) * BLOCKS * QUERY_WORDS;
        for (var row = rows.x + thread; row < rows.y; row += TILE) {
            let products = dot_scores(query_base, item_of(row / TILE, row % TILE));
            for (var block = 0u; block < BLOCKS; block++) { best[block] = max(best[block], products[block]); }
        }
        maxima[thread] = best;
        workgroupBarrier();
        for (var half = TILE / 2u; half > 0u; half /= 2u) {
            if thread < half {
                for (var block = 0u; block < BLOCKS; block++) {
                    maxima[thread][block] = max(maxima[thread][block], maxima[thread + half][block]);
                }
            }
            workgroupBarrier();
        }
        if thread == 0u {
            for (var i = 0u; i < min(AT_ONCE, query.y - first); i++) {
                sum += of_query(maxima[0][i / QUERIES_PER_THREAD], i % QUERIES_PER_THREAD);
            }
        }
        workgroupBarrier();
    }
    return sum;
}
