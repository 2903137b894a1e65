// sort: what the three sort kernels share - bindings, and comparators that put the better hit first.
//
// Bitonic sort in the form whose comparators all point the same way: each merge of two sorted runs starts with a
// mirrored pass ("flip") instead of a reversed run. So hits beyond the end of a list, taken as worse than any, never move, and
// lists need no padding to a power of two. `sort_blocks` moves the survivors to the hits and sorts blocks of BLOCK in
// workgroup memory; in longer lists each doubling of the sorted runs is a series of `merge_far` (one comparator pass in
// storage memory, the first one a flip) down to strides of BLOCK, which `merge_near` finishes.
// in  0 params  1 state (B)  2 survivors (B, capacity)    in/out 3 hits (B, k)
struct Params {
    k: u32,
    capacity: u32,
    run: u32,      // length of the sorted runs that merge_far makes
    stride: u32,   // of the comparators of merge_far; run / 2 means the flip
}

struct QueryState {
    threshold: u32,
    count: u32,
    pruned: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> state: array<QueryState>;
@group(0) @binding(2) var<storage, read> survivors: array<vec2u>;
@group(0) @binding(3) var<storage, read_write> hits: array<vec2u>;

const WIDTH: u32 = 256u;
const BLOCK: u32 = 1024u;

fn length_of(query: u32) -> u32 { return min(state[query].count, params.k); }

fn better(a: vec2u, b: vec2u) -> bool { return a.x > b.x || (a.x == b.x && a.y > b.y); }

// The two places that comparator `index` of a pass compares.
fn comparator(index: u32, run: u32, stride: u32) -> vec2u {
    let first = index / stride * stride * 2u + index % stride;
    if stride * 2u == run { return vec2u(first, index / stride * run + run - 1u - index % stride); }
    return vec2u(first, first + stride);
}
