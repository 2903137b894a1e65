// take_threshold: the k-th best score of a sample becomes what a hit has to reach at least; the list is empty again.
//
// A list of a sample that has fewer than k hits has threshold 0: everything may enter.
// in  0 params    in/out 1 state (B)
// grid (ceil(B / WIDTH))   needs lib/query_state.wgsl   twin src/backend/gpu/scan/sampled.rs
struct Params {
    n_queries: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> state: array<QueryState>;

@compute @workgroup_size(WIDTH)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if id.x >= params.n_queries { return; }
    // Scans in ascending position pass keys above the threshold only, and no score has key 0.
    state[id.x].threshold = max(state[id.x].threshold, 1u) - 1u;
    state[id.x].count = 0u;
}
