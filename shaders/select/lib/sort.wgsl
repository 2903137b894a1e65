// sort: what the kernels share that sort hits.
// needs lib/query_state.wgsl; of the kernel: bindings params, with k, and state
const BLOCK: u32 = 1024u;

fn length_of(query: u32) -> u32 { return min(state[query].count, params.k); }

fn better(a: vec2u, b: vec2u) -> bool { return a.x > b.x || (a.x == b.x && a.y > b.y); }
