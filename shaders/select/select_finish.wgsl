// select_finish: the digits of the k-th best hit that were not counted, from the hits that were gathered or, where there was no
// room for them all, from the whole list; the new state of the query; zeros for the next selection.
//
// At least the key is found to its last digit, since it is the threshold. A list of fewer than k hits is kept as it is.
// in  0 params  2 hits (B, capacity)  3 gathered (B, ROOM)    in/out 1 state (B)  4 counts (B, COUNTED, 256)  5 progress (B)
// grid (B)   needs lib/query_state.wgsl, lib/list_params.wgsl, lib/radix.wgsl, lib/select_long.wgsl, lib/counted_digits.wgsl
// twin src/backend/cpu/top_k/local.rs
// loops over digits end after 8 turns, those over hits at the length of the list, which is at most its capacity
@group(0) @binding(1) var<storage, read_write> state: array<QueryState>;
@group(0) @binding(2) var<storage, read> hits: array<vec2u>;
@group(0) @binding(3) var<storage, read> gathered: array<vec2u>;
@group(0) @binding(4) var<storage, read_write> counts: array<atomic<u32>>;
@group(0) @binding(5) var<storage, read_write> progress: array<Progress>;

var<workgroup> lengths: vec2u;

fn candidate(query: u32, in_room: bool, i: u32) -> vec2u {
    if in_room { return gathered[query * ROOM + i]; }
    return hits[query * params.capacity + i];
}

@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let query = group.x;
    if thread == 0u { lengths = vec2u(min(state[query].count, params.capacity), atomicLoad(&progress[query].gathered)); }
    let found = workgroupUniformLoad(&lengths);
    let n = found.x;
    if n < params.k {
        if thread == 0u {
            progress[query].pivot_key = 0u;
            progress[query].pivot_place = 0u;
            progress[query].n = n;
            atomicStore(&progress[query].kept, 0u);
        }
        return;
    }

    let prefix = counted_prefix(query, COUNTED, thread);
    var pivot = prefix.pivot;
    var wanted = prefix.wanted;
    let in_room = found.y <= ROOM;
    let candidates = select(n, found.y, in_room);
    for (var digit = COUNTED; digit < 8u; digit++) {
        atomicStore(&histogram[thread], 0u);
        workgroupBarrier();
        for (var i = thread; i < candidates; i += WIDTH) {
            let hit = candidate(query, in_room, i);
            if shares_prefix(hit, pivot, digit) { atomicAdd(&histogram[digit_of(hit, digit)], 1u); }
        }
        workgroupBarrier();
        let chosen = chosen_digit(thread, atomicLoad(&histogram[thread]), wanted);
        pivot = extended(pivot, digit, chosen.digit);
        wanted = chosen.wanted;
        if chosen.complete == 1u && digit >= 3u { break; }
    }

    for (var digit = 0u; digit < COUNTED; digit++) { atomicStore(&counts[(query * COUNTED + digit) * WIDTH + thread], 0u); }
    if thread == 0u {
        progress[query].pivot_key = pivot.x;
        progress[query].pivot_place = pivot.y;
        progress[query].n = n;
        atomicStore(&progress[query].gathered, 0u);
        atomicStore(&progress[query].kept, 0u);
        state[query].threshold = pivot.x;
        state[query].count = params.k;
    }
}
