// survivors: what every scan kernel shares - its bindings, and the filter that a scored pair has to pass.
//
// A hit is (key, ~position): key maps the score to a u32 of the same order, so hits compare like "score descending,
// then position ascending" when the greater is the better, and no two hits of a query are equal. Chunks of items are
// scanned in ascending position, so a pair that only ties with the current k-th hit has lost to it already.
//
// in      0 params    1 queries (block, query quads * 4, LANES)    2 items (tile, item quads, TILE) of four values each
//         3 weights   4 excluded: offsets (B + 1), then sorted positions; offsets count from the start of the array
// in/out  5 state (B)    6 survivors (B, capacity)
struct Params {
    first_tile: u32,       // of this chunk, in this shard
    n_items: u32,          // of this shard; its last tile is padded with zeros
    first_position: u32,   // of this shard's first item
    n_queries: u32,
    capacity: u32,         // survivors of one query, in hits
    inverse_temperature: f32,
}

struct QueryState {
    threshold: u32,        // key of the k-th hit so far; 0 while there are fewer
    count: atomic<u32>,    // hits in the survivor list
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> queries: array<Lanes>;
@group(0) @binding(2) var<storage, read> items: array<Quad>;
@group(0) @binding(3) var<storage, read> weights: array<vec4f>;
@group(0) @binding(4) var<storage, read> excluded: array<u32>;
@group(0) @binding(5) var<storage, read_write> state: array<QueryState>;
@group(0) @binding(6) var<storage, read_write> survivors: array<vec2u>;

// Greater score, greater key; -0 and 0 are the same score, and no number has key 0.
fn order_key(score: f32) -> u32 {
    let bits = bitcast<u32>(score);
    if (bits >> 31u) == 0u { return bits | 0x80000000u; }
    return select(~bits, 0x80000000u, bits == 0x80000000u);
}

fn is_excluded(query: u32, position: u32) -> bool {
    var low = excluded[query];
    var high = excluded[query + 1u];
    while low < high {
        let middle = (low + high) / 2u;
        let found = excluded[middle];
        if found == position { return true; }
        if found < position { low = middle + 1u; } else { high = middle; }
    }
    return false;
}

// Appends the pair to the survivors of `query` if it beats the k-th hit so far.
fn offer(query: u32, position: u32, score: f32) {
    let key = order_key(score);
    if key <= state[query].threshold || is_excluded(query, position) { return; }
    let slot = atomicAdd(&state[query].count, 1u);
    survivors[query * params.capacity + slot] = vec2u(key, ~position);
}

// Offers the scores of one item for all queries of one block.
fn offer_all(block: u32, item: u32, scores: Lanes) {
    if item >= params.n_items { return; }
    for (var lane = 0u; lane < LANES; lane++) {
        let query = block * LANES + lane;
        if query < params.n_queries { offer(query, params.first_position + item, lane_of(scores, lane)); }
    }
}
