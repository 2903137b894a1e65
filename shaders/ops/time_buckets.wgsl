// time_buckets: HSTU's relative time bucket of each (row, earlier row of its sequence) pair, four to a word.
// A bucket is the number of bounds that are <= |next_timestamps[i] - timestamps[j]|: exact, without logarithms.
// in   0 params  1 timestamps (rows)  2 next_timestamps (rows)  3 start (rows)  4 bounds (n_bounds), ascending;
//      64-bit integers as (low, high)
// out  5 buckets (rows, words): byte j - start of row i's words
// loops end after 4 turns, the search when nothing is left between its ends
// grid folded ceil(rows * words / WORKGROUP)   needs n_bounds < 256   twin src/sequence.rs
struct Params {
    n: u32,
    words: u32,
    n_bounds: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> timestamps: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read> next_timestamps: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read> start: array<u32>;
@group(0) @binding(4) var<storage, read> bounds: array<vec2<u32>>;
@group(0) @binding(5) var<storage, read_write> buckets: array<u32>;

const WORKGROUP: u32 = 64u;

fn at_most(a: vec2<u32>, b: vec2<u32>) -> bool {
    return a.y < b.y || (a.y == b.y && a.x <= b.x);
}

// |a - b| of signed integers; flipping the sign bits keeps their order and makes them unsigned.
fn distance_between(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let flip = vec2<u32>(0u, 0x80000000u);
    let a_is_larger = at_most(b ^ flip, a ^ flip);
    let larger = select(b, a, a_is_larger);
    let smaller = select(a, b, a_is_larger);
    return larger - smaller - vec2<u32>(0u, u32(larger.x < smaller.x));
}

fn bucket(distance: vec2<u32>) -> u32 {
    var below = 0u;
    var end = params.n_bounds;
    while below < end {
        let middle = (below + end) / 2u;
        if at_most(bounds[middle], distance) {
            below = middle + 1u;
        } else {
            end = middle;
        }
    }
    return below;
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let index = (group.x + group.y * groups.x) * WORKGROUP + thread;
    if index >= params.n {
        return;
    }
    let i = index / params.words;
    let first = start[i] + 4u * (index % params.words);
    var word = 0u;
    for (var byte = 0u; byte < 4u && first + byte <= i; byte++) {
        word |= bucket(distance_between(next_timestamps[i], timestamps[first + byte])) << (8u * byte);
    }
    buckets[index] = word;
}
