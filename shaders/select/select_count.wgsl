// select_count: how many hits of a long hit list have each value of one digit, among those that share the digits before
// with the k-th best hit.
// in  0 params  1 state (B)  2 hits (B, capacity)    in/out 3 counts (B, COUNTED, 256)
// grid (workgroups per list, B)   needs lib/query_state.wgsl, lib/radix.wgsl, lib/select_long.wgsl, lib/counted_digits.wgsl
// twin src/backend/cpu/top_k/local.rs
// loops end at the length of the list, which is at most its capacity
struct Params {
    k: u32,
    capacity: u32,
    digit: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> state: array<QueryState>;
@group(0) @binding(2) var<storage, read> hits: array<vec2u>;
@group(0) @binding(3) var<storage, read_write> counts: array<atomic<u32>>;

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
    let prefix = counted_prefix(group.y, params.digit, thread);
    atomicStore(&histogram[thread], 0u);
    workgroupBarrier();
    for (var i = group.x * WIDTH + thread; i < n; i += grid.x * WIDTH) {
        let hit = hits[group.y * params.capacity + i];
        if shares_prefix(hit, prefix.pivot, params.digit) { atomicAdd(&histogram[digit_of(hit, params.digit)], 1u); }
    }
    workgroupBarrier();
    let own = atomicLoad(&histogram[thread]);
    if own > 0u { atomicAdd(&counts[(group.y * COUNTED + params.digit) * WIDTH + thread], own); }
}
