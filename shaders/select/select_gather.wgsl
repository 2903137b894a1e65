// select_gather: the hits of a long hit list that share the counted digits with the k-th best hit, as far as there is room.
// in  0 params  1 state (B)  2 hits (B, capacity)    in/out 3 counts (B, COUNTED, 256)  4 progress (B)
// out 5 gathered (B, ROOM)
// grid (workgroups per list, B)   needs lib/query_state.wgsl, lib/list_params.wgsl, lib/radix.wgsl, lib/select_long.wgsl,
// lib/counted_digits.wgsl   twin src/backend/cpu/top_k/local.rs
// loops end at the length of the list, which is at most its capacity
@group(0) @binding(1) var<storage, read> state: array<QueryState>;
@group(0) @binding(2) var<storage, read> hits: array<vec2u>;
@group(0) @binding(3) var<storage, read_write> counts: array<atomic<u32>>;
@group(0) @binding(4) var<storage, read_write> progress: array<Progress>;
@group(0) @binding(5) var<storage, read_write> gathered: array<vec2u>;

var<workgroup> count: u32;

@compute @workgroup_size(WIDTH)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) grid: vec3u,
    @builtin(local_invocation_index) thread: u32,
) {
    if thread == 0u { count = min(state[group.y].count, params.capacity); }
    let n = workgroupUniformLoad(&count);
    if n < params.k { return; }
    let prefix = counted_prefix(group.y, COUNTED, thread);
    for (var i = group.x * WIDTH + thread; i < n; i += grid.x * WIDTH) {
        let hit = hits[group.y * params.capacity + i];
        if shares_prefix(hit, prefix.pivot, COUNTED) {
            let slot = atomicAdd(&progress[group.y].gathered, 1u);
            if slot < ROOM { gathered[group.y * ROOM + slot] = hit; }
        }
    }
}
