// mol_scan_pruned: mol_scan that leaves out the gate where the bounds of an item are below the k-th scores of all queries
// of its thread, and counts such items; with several sections, where that holds for all items of a tile. Their scores would not pass the
// filter: the hits are those of mol_scan.
// in  7 weights
// grid (query blocks, tiles of the chunk)   twin src/backend/cpu/scan/mol_scan.rs
// needs what lib/mol.wgsl needs; lib/chunk.wgsl
// loops end after QUERIES_PER_THREAD turns
@group(0) @binding(7) var<storage, read> weights: array<vec4f>;

var<workgroup> skipped: atomic<u32>;

fn all_beaten(block: u32, bounds: PerQuery) -> bool {
    for (var own = 0u; own < QUERIES_PER_THREAD; own++) {
        let query = block * QUERIES_PER_THREAD + own;
        if query < params.n_queries && !is_beaten(query, order_key(of_query(bounds, own))) { return false; }
    }
    return true;
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3u, thread: Thread) {
    let own = item_of_thread(thread);
    if own == 0u && has_scores() { atomicStore(&skipped, 0u); }
    workgroupBarrier();
    let tile = params.first_tile + group.y * params.tile_stride;
    let item = tile * TILE + own;
    let query_base = group.x * QUERY_QUADS * 4u;
    let item_base = item_of(tile, own);
    var z: Logits;
    add_logits(&z, query_base, item_base);
    if of_all_threads(all_beaten(group.x, bounds_of(&z))) {
        if item < params.n_items && has_scores() { atomicAdd(&skipped, 1u); }
    } else {
        let scores = mixtures_of(&z, query_base, item_base);
        if has_scores() { offer_all(group.x, item, Scores(scores)); }
    }
    workgroupBarrier();
    let query = group.x * QUERIES_PER_THREAD + own;
    let counts = own < QUERIES_PER_THREAD && has_scores();
    if counts && query < params.n_queries { atomicAdd(&state[query].pruned, atomicLoad(&skipped)); }
}
