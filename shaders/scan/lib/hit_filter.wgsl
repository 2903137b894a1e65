// hit_filter: what every scan kernel shares - its bindings, and the filter that a scored pair has to pass.
//
// A hit is (key, ~position): key maps the score to a u32 of the same order, so hits compare like "score descending,
// then position ascending" when the greater is the better, and no two hits of a query are equal. Where a scan is
// ASCENDING in position, a pair that only ties with the current k-th hit has lost to it already.
//
// in      1 queries (block, query words, QUERIES_PER_THREAD)    2 items (tile, item quads / RUN, TILE, RUN) of four values each
//         3 excluded: offsets (B + 1), then sorted positions; offsets count from the start of the array
//         4 denied: positions that no query may find, 32 to a word, the first one in the lowest bit
// in/out  5 state (B)    6 hits (B, capacity)
// loops end when nothing is left between the ends of the search
// needs constants ASCENDING, BLOCKS; alias Query, which is PerQuery or PerQueryWord; lib/table_*.wgsl; lib/per_query_*.wgsl; ../lib/order_key.wgsl; of the kernel:
// params.capacity, the hits that a list has room for, and params.has_denied
struct QueryState {
    threshold: u32,        // key of the k-th hit so far; 0 while there are fewer
    count: atomic<u32>,    // hits in the hit list; beyond its capacity they are counted only
    pruned: atomic<u32>,   // items left out
}

// Of one item: the scores of all queries of a thread.
alias Scores = array<PerQuery, BLOCKS>;

@group(0) @binding(1) var<storage, read> queries: array<Query>;
@group(0) @binding(2) var<storage, read> items: array<Quad>;
@group(0) @binding(3) var<storage, read> excluded: array<u32>;
@group(0) @binding(4) var<storage, read> denied: array<u32>;
@group(0) @binding(5) var<storage, read_write> state: array<QueryState>;
@group(0) @binding(6) var<storage, read_write> hits: array<vec2u>;

fn is_denied(position: u32) -> bool {
    return params.has_denied == 1u && ((denied[position / 32u] >> (position % 32u)) & 1u) == 1u;
}

fn is_excluded(query: u32, position: u32) -> bool {
    var first = excluded[query];
    var last = excluded[query + 1u];
    while first < last {
        let middle = (first + last) / 2u;
        let found = excluded[middle];
        if found == position { return true; }
        if found < position { first = middle + 1u; } else { last = middle; }
    }
    return false;
}

// Whether a score of this key can no longer enter the list of `query`.
fn is_beaten(query: u32, key: u32) -> bool {
    let threshold = state[query].threshold;
    return key < threshold || (ASCENDING && key == threshold);
}

// Appends the pair to the hit list of `query` if it beats the k-th hit so far.
fn offer(query: u32, position: u32, score: f32) {
    let key = order_key(score);
    if is_beaten(query, key) || is_denied(position) || is_excluded(query, position) { return; }
    let slot = atomicAdd(&state[query].count, 1u);
    if slot < params.capacity { hits[query * params.capacity + slot] = vec2u(key, ~position); }
}
