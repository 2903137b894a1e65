// select_compact: the hits of a long hit list that are not worse than the k-th best one, to another list, in any order.
// in  0 params  1 hits (B, capacity)    in/out 2 progress (B)    out 3 kept (B, capacity)
// grid (workgroups per list, B)   needs lib/query_state.wgsl, lib/list_params.wgsl, lib/select_long.wgsl
// twin src/backend/cpu/top_k/local.rs
// loops end at the length of the list, which is at most its capacity
@group(0) @binding(1) var<storage, read> hits: array<vec2u>;
@group(0) @binding(2) var<storage, read_write> progress: array<Progress>;
@group(0) @binding(3) var<storage, read_write> kept: array<vec2u>;

var<workgroup> known: vec3u;
var<workgroup> of_round: atomic<u32>;
var<workgroup> first: u32;

@compute @workgroup_size(WIDTH)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) grid: vec3u,
    @builtin(local_invocation_index) thread: u32,
) {
    let query = group.y;
    if thread == 0u { known = vec3u(progress[query].pivot_key, progress[query].pivot_place, progress[query].n); }
    let pivot = workgroupUniformLoad(&known);
    for (var base = group.x * WIDTH; base < pivot.z; base += grid.x * WIDTH) {
        if thread == 0u { atomicStore(&of_round, 0u); }
        workgroupBarrier();
        var hit = vec2u(0u);
        if base + thread < pivot.z { hit = hits[query * params.capacity + base + thread]; }
        let stays = base + thread < pivot.z && (hit.x > pivot.x || (hit.x == pivot.x && hit.y >= pivot.y));
        var slot = 0u;
        if stays { slot = atomicAdd(&of_round, 1u); }
        workgroupBarrier();
        // One workgroup takes its places together: a list of one counter is else a queue.
        if thread == 0u { first = atomicAdd(&progress[query].kept, atomicLoad(&of_round)); }
        let start = workgroupUniformLoad(&first);
        if stays { kept[query * params.capacity + start + slot] = hit; }
    }
}
