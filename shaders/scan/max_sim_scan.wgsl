// max_sim_scan: late interaction of every (query, item) pair of one chunk, filtered at once. A workgroup has one pair.
// in  7 offsets (items of the shard + 1): the first vector of each item, and the end    8 extents (B): as lib/max_sim.wgsl has them
// grid (B, tiles of the chunk, TILE)   twin src/backend/cpu/scan/max_sim_scan.rs
// needs what lib/max_sim.wgsl needs; lib/chunk.wgsl
@group(0) @binding(7) var<storage, read> offsets: array<u32>;
@group(0) @binding(8) var<storage, read> extents: array<vec2u>;

@compute @workgroup_size(TILE)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let item = (params.first_tile + group.y * params.tile_stride) * TILE + group.z;
    if item >= params.n_items { return; }
    let score = max_sim(extents[group.x], vec2u(offsets[item], offsets[item + 1u]), thread);
    if thread == 0u { offer(group.x, params.first_position + item, score); }
}
