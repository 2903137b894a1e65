// list_scan: inner products of query vectors and the items of the inverted lists that each of them probes. A workgroup
// scans a task: up to TILE rows of one list for one vector.
// in  0 params    7 tasks    8 positions of the items, in the order of the lists; of this shard
// grid folded tasks   twin src/backend/cpu/scan/list_scan.rs
// needs constant QUERY_WORDS and what lib/dot.wgsl or lib/dot_i8.wgsl needs, with QUERIES_PER_THREAD = 1 and BLOCKS = 1; lib/hit_filter.wgsl
const ASCENDING: bool = false;

struct Params {
    n_tasks: u32,
    capacity: u32,
    has_denied: u32,
}

struct Task {
    query: u32,
    first: u32,   // row of this shard
    end: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(7) var<storage, read> tasks: array<Task>;
@group(0) @binding(8) var<storage, read> positions: array<u32>;

@compute @workgroup_size(TILE)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) grid: vec3u,
    @builtin(local_invocation_index) thread: u32,
) {
    let index = group.x + group.y * grid.x;
    if index >= params.n_tasks { return; }
    let task = tasks[index];
    let row = task.first + thread;
    if row >= task.end { return; }
    let item_base = item_of(row / TILE, row % TILE);
    offer(task.query, positions[row], of_query(dot_scores(task.query * QUERY_WORDS, item_base)[0], 0u));
}
