// max_sim_rescore: late interaction of some items of every query. A workgroup has one pair.
// in  0 params    1 queries and 2 items as lib/max_sim.wgsl has them
//     3 offsets (items of the shard + 1): the first vector of each item, and the end    4 extents (B)
//     5 candidates: offsets (B + 1), then positions; offsets count from the start of the array
// out 6 scores, one per candidate; those of candidates that are not in this shard are left alone
// grid (longest list, B, 1), the first axis folded into the last one where it is too short   twin src/backend/cpu/scan/max_sim_scan.rs
// needs alias Query, which is PerQuery or PerQueryWord; what lib/max_sim.wgsl needs
struct Params {
    first_position: u32,   // of this shard's first item
    n_items: u32,          // of this shard
}

// Of one item: the products of all query vectors of a thread.
alias Scores = array<PerQuery, BLOCKS>;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> queries: array<Query>;
@group(0) @binding(2) var<storage, read> items: array<Quad>;
@group(0) @binding(3) var<storage, read> offsets: array<u32>;
@group(0) @binding(4) var<storage, read> extents: array<vec2u>;
@group(0) @binding(5) var<storage, read> candidates: array<u32>;
@group(0) @binding(6) var<storage, read_write> scores: array<f32>;

@compute @workgroup_size(TILE)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) thread: u32,
) {
    let slot = candidates[group.y] + group.x + group.z * groups.x;
    if slot >= candidates[group.y + 1u] { return; }
    // Positions before the shard wrap around to large numbers.
    let item = candidates[slot] - params.first_position;
    if item >= params.n_items { return; }
    let score = max_sim(extents[group.y], vec2u(offsets[item], offsets[item + 1u]), thread);
    if thread == 0u { scores[slot - candidates[0]] = score; }
}
