// chunk: what the scans of chunks of items share - their parameters. Chunks are scanned in ascending position.
// in  0 params    needs lib/hit_filter.wgsl
// loops end after QUERIES_PER_THREAD turns
const ASCENDING: bool = true;

struct Params {
    first_tile: u32,       // of this chunk, in this shard
    n_items: u32,          // of this shard; its last tile is padded with zeros
    first_position: u32,   // of this shard's first item
    n_queries: u32,
    capacity: u32,
    has_denied: u32,
    inverse_temperature: f32,
}

@group(0) @binding(0) var<uniform> params: Params;

// Offers the scores of one item for all queries of one block.
fn offer_all(block: u32, item: u32, scores: PerQuery) {
    if item >= params.n_items { return; }
    for (var own = 0u; own < QUERIES_PER_THREAD; own++) {
        let query = block * QUERIES_PER_THREAD + own;
        if query < params.n_queries { offer(query, params.first_position + item, of_query(scores, own)); }
    }
}
