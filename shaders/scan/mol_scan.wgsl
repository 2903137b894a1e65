// mol_scan: Mixture-of-Logits of every (query, item) pair of one chunk, filtered at once; nothing of size B * N * L is
// stored. A thread, or one for each section, owns one item and QUERIES_PER_THREAD queries.
// grid (query blocks, tiles of the chunk)   twin src/backend/cpu/scan/mol_scan.rs
// needs what lib/mol.wgsl needs; lib/weights_*.wgsl; lib/chunk.wgsl
@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3u, thread: Thread) {
    let tile = params.first_tile + group.y * params.tile_stride;
    let item = item_of_thread(thread);
    let scores = mol_scores(group.x * QUERY_QUADS * 4u, item_of(tile, item));
    if has_scores() { offer_all(group.x, tile * TILE + item, Scores(scores)); }
}
