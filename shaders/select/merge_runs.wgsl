// merge_runs: up to FAN_IN sorted runs become one. No two hits are equal, so the place of a hit is the number of better ones:
// those before it in its run, and those that a binary search finds in each of the others.
// in  0 params  1 state (B)  2 hits (B, k), sorted in runs of `run`    out 3 merged (B, k), in runs of FAN_IN * run
// grid (blocks of k, B)   needs lib/query_state.wgsl, lib/sort.wgsl   twin src/backend/cpu/top_k/local.rs
// loops over runs end after FAN_IN turns, those over hits at BLOCK, the search when nothing is left between its ends
struct Params {
    k: u32,
    run: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> state: array<QueryState>;
@group(0) @binding(2) var<storage, read> hits: array<vec2u>;
@group(0) @binding(3) var<storage, read_write> merged: array<vec2u>;

const FAN_IN: u32 = 16u;

// How many hits of the sorted places `start .. end` are better than `hit`.
fn better_ones(list: u32, start: u32, end: u32, hit: vec2u) -> u32 {
    var first = start;
    var last = end;
    while first < last {
        let middle = (first + last) / 2u;
        if better(hits[list + middle], hit) { first = middle + 1u; } else { last = middle; }
    }
    return first - start;
}

@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let n = length_of(group.y);
    let list = group.y * params.k;
    for (var i = thread; i < BLOCK; i += WIDTH) {
        let place = group.x * BLOCK + i;
        if place < n {
            let hit = hits[list + place];
            let own = place / params.run;
            let first = own / FAN_IN * FAN_IN;
            var to = first * params.run + place % params.run;
            for (var other = first; other < first + FAN_IN; other++) {
                let start = other * params.run;
                if start >= n { break; }
                if other != own { to += better_ones(list, start, min(n, start + params.run), hit); }
            }
            merged[list + to] = hit;
        }
    }
}
