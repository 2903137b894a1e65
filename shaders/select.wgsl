// select: keeps the best k hits of every survivor list and sets the new threshold.
//
// Radix select, 8 bits at a time from the top of (key, ~position): the histogram of the digit among the hits that share
// the pivot's prefix tells the digit of the k-th best hit. It ends as soon as all hits with the prefix are needed. Hits
// are distinct, so the result does not depend on the order in which they were appended. The kept hits then move to the
// front of the list in place: a round reads 256 hits before it writes any, and never writes beyond what it has read.
// One workgroup per query; lists of fewer than k hits are left alone.
// in  0 params    in/out 1 state (B)  2 survivors (B, capacity)
// grid (B)   twin the order of tests/common/compare.rs
struct Params {
    k: u32,
    capacity: u32,
}

struct QueryState {
    threshold: u32,
    count: u32,
    pruned: u32,
}

struct Choice {
    digit: u32,    // of the k-th best hit
    wanted: u32,   // hits that are still to be found below the prefix
    complete: u32, // 1: every hit with the prefix is one of the best k
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> state: array<QueryState>;
@group(0) @binding(2) var<storage, read_write> survivors: array<vec2u>;

const WIDTH: u32 = 256u;

var<workgroup> count: u32;
var<workgroup> histogram: array<atomic<u32>, WIDTH>;
var<workgroup> at_least: array<u32, WIDTH>;
var<workgroup> choice: Choice;
var<workgroup> kept: atomic<u32>;
var<workgroup> lowest: atomic<u32>;

// Digit 0 is the most significant byte of the key, digit 7 the least significant byte of ~position.
fn digit_of(hit: vec2u, digit: u32) -> u32 {
    return (hit[digit / 4u] >> (24u - digit % 4u * 8u)) & 0xffu;
}

fn shares_prefix(hit: vec2u, pivot: vec2u, digits: u32) -> bool {
    let differs = hit ^ pivot;
    if digits < 4u { return (differs.x & ~(0xffffffffu >> (digits * 8u))) == 0u; }
    return differs.x == 0u && (differs.y & ~(0xffffffffu >> (digits % 4u * 8u))) == 0u;
}

@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let list = group.x * params.capacity;
    if thread == 0u {
        count = state[group.x].count;
        choice = Choice(0u, params.k, 0u);
        atomicStore(&kept, 0u);
        atomicStore(&lowest, 0xffffffffu);
    }
    let n = workgroupUniformLoad(&count);
    if n < params.k { return; }

    var pivot = vec2u(0u);
    for (var digit = 0u; digit < 8u; digit++) {
        atomicStore(&histogram[thread], 0u);
        workgroupBarrier();
        for (var i = thread; i < n; i += WIDTH) {
            let hit = survivors[list + i];
            if shares_prefix(hit, pivot, digit) { atomicAdd(&histogram[digit_of(hit, digit)], 1u); }
        }
        workgroupBarrier();
        let own = atomicLoad(&histogram[thread]);
        var sum = own;
        at_least[thread] = sum;
        for (var stride = 1u; stride < WIDTH; stride *= 2u) {
            workgroupBarrier();
            if thread + stride < WIDTH { sum += at_least[thread + stride]; }
            workgroupBarrier();
            at_least[thread] = sum;
        }
        let wanted = workgroupUniformLoad(&choice).wanted;
        if sum >= wanted && sum - own < wanted {
            choice = Choice(thread, wanted - (sum - own), select(0u, 1u, sum == wanted));
        }
        let chosen = workgroupUniformLoad(&choice);
        pivot[digit / 4u] |= chosen.digit << (24u - digit % 4u * 8u);
        if chosen.complete == 1u { break; }
    }

    for (var base = 0u; base < n; base += WIDTH) {
        var hit = vec2u(0u);
        if base + thread < n { hit = survivors[list + base + thread]; }
        storageBarrier();
        let stays = base + thread < n && (hit.x > pivot.x || (hit.x == pivot.x && hit.y >= pivot.y));
        if stays {
            survivors[list + atomicAdd(&kept, 1u)] = hit;
            atomicMin(&lowest, hit.x);
        }
    }
    workgroupBarrier();
    if thread == 0u {
        state[group.x].threshold = atomicLoad(&lowest);
        state[group.x].count = params.k;
    }
}
