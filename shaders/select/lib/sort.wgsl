// sort: what the kernels share that sort hits.
// needs of the kernel: bindings params, with k, and state
struct QueryState {
    threshold: u32,
    count: u32,
    pruned: u32,
}

const WIDTH: u32 = 256u;
const BLOCK: u32 = 1024u;

fn length_of(query: u32) -> u32 { return min(state[query].count, params.k); }

fn better(a: vec2u, b: vec2u) -> bool { return a.x > b.x || (a.x == b.x && a.y > b.y); }
