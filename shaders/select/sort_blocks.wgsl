// sort_blocks: the hits of each list to a list of k, every block of BLOCK sorted, or of the power of two that holds k.
//
// Bitonic sort in the form whose comparators all point the same way: each merge of two sorted runs starts with a
// mirrored pass ("flip") instead of a reversed run. So hits beyond the end of a list, taken as worse than any, never move, and
// lists need no padding to a power of two.
// in  0 params  1 state (B)  2 unsorted (B, capacity)    out 3 sorted (B, k)
// grid (blocks of k, B)   needs lib/query_state.wgsl, lib/list_params.wgsl, lib/sort.wgsl   twin src/backend/cpu/top_k/local.rs
// loops over runs and strides end after log2(size) turns each, those over hits at size, which is at most BLOCK
@group(0) @binding(1) var<storage, read> state: array<QueryState>;
@group(0) @binding(2) var<storage, read> unsorted: array<vec2u>;
@group(0) @binding(3) var<storage, read_write> sorted: array<vec2u>;

var<workgroup> block: array<vec2u, BLOCK>;

// The two places that comparator `index` of a pass compares.
fn comparator(index: u32, run: u32, stride: u32) -> vec2u {
    let first = index / stride * stride * 2u + index % stride;
    if stride * 2u == run { return vec2u(first, index / stride * run + run - 1u - index % stride); }
    return vec2u(first, first + stride);
}

// Two sorted runs become one of `run` hits, in all `size` hits; ends with a barrier.
fn merge_block(thread: u32, run: u32, size: u32) {
    for (var stride = run / 2u; stride > 0u; stride /= 2u) {
        for (var index = thread; index < size / 2u; index += WIDTH) {
            let places = comparator(index, run, stride);
            let a = block[places.x];
            let b = block[places.y];
            if better(b, a) {
                block[places.x] = b;
                block[places.y] = a;
            }
        }
        workgroupBarrier();
    }
}

@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let n = length_of(group.y);
    // Of k alone, not of n, so that all threads of the workgroup meet at the barriers.
    var size = 2u;
    while size < BLOCK && size < params.k - group.x * BLOCK { size *= 2u; }
    for (var i = thread; i < size; i += WIDTH) {
        let place = group.x * BLOCK + i;
        block[i] = vec2u(0u);
        if place < n { block[i] = unsorted[group.y * params.capacity + place]; }
    }
    workgroupBarrier();
    for (var run = 2u; run <= size; run *= 2u) { merge_block(thread, run, size); }
    for (var i = thread; i < size; i += WIDTH) {
        let place = group.x * BLOCK + i;
        if place < n { sorted[group.y * params.k + place] = block[i]; }
    }
}
