// dot_scan: inner products of every (query, item) pair of one chunk, filtered at once.
// grid (query blocks / BLOCKS, tiles of the chunk)   twin src/backend/cpu/scan/dot_scan.rs
// needs constants BLOCKS, QUERY_WORDS and what lib/dot.wgsl or lib/dot_i8.wgsl needs; lib/chunk.wgsl
@compute @workgroup_size(TILE)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let tile = params.first_tile + group.y * params.tile_stride;
    let scores = dot_scores(group.x * BLOCKS * QUERY_WORDS, item_of(tile, thread));
    offer_all(group.x * BLOCKS, tile * TILE + thread, scores);
}
