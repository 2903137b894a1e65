// select: keeps the best k hits of every hit list and sets the new threshold.
//
// Radix select, 8 bits at a time from the top of (key, ~position): the histogram of the digit among the hits that share
// the pivot's prefix tells the digit of the k-th best hit. It ends as soon as all hits with the prefix are needed. Hits
// are distinct, so the result does not depend on the order in which they were appended. The kept hits then move to the
// front of the list in place: a round reads 256 hits before it writes any, and never writes beyond what it has read.
// One workgroup per query; lists of fewer than k hits are left alone. For long lists there is select_count and what follows it.
// in  0 params    in/out 1 state (B)  2 hits (B, capacity)
// grid (B)   needs lib/query_state.wgsl, lib/list_params.wgsl, lib/radix.wgsl   twin src/backend/cpu/top_k/local.rs
// loops over digits end after 8 turns, those over hits at the length of the list, which is at most its capacity
@group(0) @binding(1) var<storage, read_write> state: array<QueryState>;
@group(0) @binding(2) var<storage, read_write> hits: array<vec2u>;

var<workgroup> count: u32;
var<workgroup> kept: atomic<u32>;
var<workgroup> lowest: atomic<u32>;

@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let list = group.x * params.capacity;
    if thread == 0u {
        count = min(state[group.x].count, params.capacity);
        atomicStore(&kept, 0u);
        atomicStore(&lowest, 0xffffffffu);
    }
    let n = workgroupUniformLoad(&count);
    if n < params.k { return; }

    var pivot = vec2u(0u);
    var wanted = params.k;
    for (var digit = 0u; digit < 8u; digit++) {
        atomicStore(&histogram[thread], 0u);
        workgroupBarrier();
        for (var i = thread; i < n; i += WIDTH) {
            let hit = hits[list + i];
            if shares_prefix(hit, pivot, digit) { atomicAdd(&histogram[digit_of(hit, digit)], 1u); }
        }
        workgroupBarrier();
        let chosen = chosen_digit(thread, atomicLoad(&histogram[thread]), wanted);
        pivot = extended(pivot, digit, chosen.digit);
        wanted = chosen.wanted;
        if chosen.complete == 1u { break; }
    }

    for (var base = 0u; base < n; base += WIDTH) {
        var hit = vec2u(0u);
        if base + thread < n { hit = hits[list + base + thread]; }
        storageBarrier();
        let stays = base + thread < n && (hit.x > pivot.x || (hit.x == pivot.x && hit.y >= pivot.y));
        if stays {
            hits[list + atomicAdd(&kept, 1u)] = hit;
            atomicMin(&lowest, hit.x);
        }
    }
    workgroupBarrier();
    if thread == 0u {
        state[group.x].threshold = atomicLoad(&lowest);
        state[group.x].count = params.k;
    }
}
