// mol_rescore_hits: Mixture-of-Logits of the hits of every query, which takes the place of the score that they were found by. A
// thread, or one for each section, owns one hit.
// in  0 params    1 queries (B, query quads * 4)    2 items (tile, item quads / RUN, TILE, RUN) of four values each    3 weights
//     4 state (B)
// in/out 5 hits (B, capacity) of (key, ~position); those that are not in this shard are left alone
// grid (longest list / TILE, queries of this dispatch)   twin src/backend/cpu/scan/mol_scan.rs
// needs what lib/mol.wgsl needs, with QUERIES_PER_THREAD = 1; ../select/lib/query_state.wgsl; ../lib/order_key.wgsl
struct Params {
    first_position: u32,   // of this shard's first item
    n_items: u32,          // of this shard
    first_query: u32,      // of this dispatch
    capacity: u32,         // hits that a list has room for; none is longer
    inverse_temperature: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> queries: array<PerQuery>;
@group(0) @binding(2) var<storage, read> items: array<Quad>;
@group(0) @binding(3) var<storage, read> weights: array<vec4f>;
@group(0) @binding(4) var<storage, read> state: array<QueryState>;
@group(0) @binding(5) var<storage, read_write> hits: array<vec2u>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3u, thread: Thread) {
    let index = group.x * TILE + item_of_thread(thread);
    let query = params.first_query + group.y;
    let count = state[query].count;
    let slot = query * params.capacity + index;
    var item = 0u;
    if index < count { item = ~hits[slot].y - params.first_position; }
    // Positions before the shard wrap around to large numbers.
    let is_absent = index >= count || item >= params.n_items;
    if of_all_threads(is_absent) { return; }
    if is_absent { item = 0u; }
    let score = of_query(mol_scores(query * QUERY_QUADS * 4u, item_of(item / TILE, item % TILE)), 0u);
    if has_scores() && !is_absent { hits[slot].x = order_key(score); }
}
