// unite_hits: the hits that some vectors of each query have found become one list of the query, every position once.
//
// Positions go to a hash table: whoever puts a position where nothing was appends the hit. Which of two equal positions that is does
// not matter, nor does the order, to what comes after.
// in  0 params  1 found (V) of states  2 found_hits (V, found_capacity)
// in/out 3 seen (B, slots) of ~position, 0 where nothing is  4 state (B)    out 5 hits (B, capacity)
// grid (longest list / WIDTH, V)   needs lib/query_state.wgsl   twin src/search/candidates.rs
// loops end after `slots` turns, of which there are more than hits
struct Params {
    found_capacity: u32,
    per_query: u32,   // vectors of a query, one after the other
    slots: u32,       // a power of two
    capacity: u32,
}

struct Count {
    threshold: u32,
    count: atomic<u32>,
    pruned: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> found: array<QueryState>;
@group(0) @binding(2) var<storage, read> found_hits: array<vec2u>;
@group(0) @binding(3) var<storage, read_write> seen: array<atomic<u32>>;
@group(0) @binding(4) var<storage, read_write> state: array<Count>;
@group(0) @binding(5) var<storage, read_write> hits: array<vec2u>;

// Whether nobody has put this place into the table of `query` before.
fn is_first(query: u32, place: u32) -> bool {
    var slot = place * 0x9e3779b1u >> countLeadingZeros(params.slots - 1u);
    for (var turn = 0u; turn < params.slots; turn++) {
        let at = query * params.slots + slot;
        // What another thread puts there in between is what the exchange returns.
        let before = atomicCompareExchangeWeak(&seen[at], 0u, place);
        if before.exchanged { return true; }
        if before.old_value == place { return false; }
        // An exchange may fail for no reason: then the place is still free.
        if before.old_value != 0u { slot = (slot + 1u) & (params.slots - 1u); }
    }
    return false;
}

@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let index = group.x * WIDTH + thread;
    if index >= min(found[group.y].count, params.found_capacity) { return; }
    let hit = found_hits[group.y * params.found_capacity + index];
    let query = group.y / params.per_query;
    if is_first(query, hit.y) {
        hits[query * params.capacity + atomicAdd(&state[query].count, 1u)] = hit;
    }
}
