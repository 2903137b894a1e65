// split_hits: sorted hits as an array of positions and an array of scores, for readers on the device.
//
// Rows with fewer hits than k end in position 0xffffffff and score -infinity.
// in  0 params  1 state (B)  2 hits (B, k)    out 3 positions (.., k)  4 scores (.., k)
// grid (blocks of k, B)   needs lib/query_state.wgsl, ../lib/order_key.wgsl
// twin src/backend/gpu/select/top_k.rs
struct Params {
    k: u32,
    first_query: u32,   // row of the outputs that query 0 goes to
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> state: array<QueryState>;
@group(0) @binding(2) var<storage, read> hits: array<vec2u>;
@group(0) @binding(3) var<storage, read_write> positions: array<u32>;
@group(0) @binding(4) var<storage, read_write> scores: array<u32>;

const NEGATIVE_INFINITY: u32 = 0xff800000u;

@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let place = group.x * WIDTH + thread;
    if place >= params.k { return; }
    let to = (params.first_query + group.y) * params.k + place;
    if place < state[group.y].count {
        let hit = hits[group.y * params.k + place];
        positions[to] = ~hit.y;
        scores[to] = score_bits(hit.x);
    } else {
        positions[to] = 0xffffffffu;
        scores[to] = NEGATIVE_INFINITY;
    }
}
