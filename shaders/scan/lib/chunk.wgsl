// chunk: what the scans of chunks of items share - their parameters. Chunks are scanned in ascending position.
// in  0 params    needs lib/hit_filter.wgsl
// loops end after BLOCKS and QUERIES_PER_THREAD turns, the last one after as many as there are queries
const ASCENDING: bool = true;

struct Params {
    first_tile: u32,       // of this chunk, in this shard
    tile_stride: u32,      // from one tile of the chunk to the next: 1, or more for a sample
    n_items: u32,          // of this shard; its last tile is padded with zeros
    first_position: u32,   // of this shard's first item
    n_queries: u32,
    capacity: u32,
    has_denied: u32,
    inverse_temperature: f32,
}

@group(0) @binding(0) var<uniform> params: Params;

// Offers the scores of one item for all queries of a thread. Few pass: which ones is found out first, with indices that are constants
// once the loops are written out.
fn offer_all(first_block: u32, item: u32, scores: Scores) {
    if item >= params.n_items { return; }
    let first_query = first_block * QUERIES_PER_THREAD;
    var passing = 0u;
    for (var block = 0u; block < BLOCKS; block++) {
        for (var own = 0u; own < QUERIES_PER_THREAD; own++) {
            let index = block * QUERIES_PER_THREAD + own;
            let query = min(first_query + index, params.n_queries - 1u);
            let passes = query == first_query + index && !is_beaten(query, order_key(of_query(scores[block], own)));
            passing |= select(0u, 1u << index, passes);
        }
    }
    while passing != 0u {
        let index = firstTrailingBit(passing);
        passing &= passing - 1u;
        let score = of_query(scores[index / QUERIES_PER_THREAD], index % QUERIES_PER_THREAD);
        offer(first_query + index, params.first_position + item, score);
    }
}
