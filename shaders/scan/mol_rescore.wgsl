// mol_rescore: Mixture-of-Logits of some items of every query. A thread, or one for each section, owns one pair.
// in  0 params    1 queries (B, query quads * 4)    2 items (tile, item quads / RUN, TILE, RUN) of four values each    3 weights
//     4 candidates: offsets (B + 1), then positions; offsets count from the start of the array
// out 5 scores, one per candidate; those of candidates that are not in this shard are left alone
// grid (longest list / TILE, B)   twin src/backend/cpu/scan/mol_scan.rs
// needs what lib/mol.wgsl needs, with QUERIES_PER_THREAD = 1
struct Params {
    first_position: u32,   // of this shard's first item
    n_items: u32,          // of this shard
    inverse_temperature: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> queries: array<PerQuery>;
@group(0) @binding(2) var<storage, read> items: array<Quad>;
@group(0) @binding(3) var<storage, read> weights: array<vec4f>;
@group(0) @binding(4) var<storage, read> candidates: array<u32>;
@group(0) @binding(5) var<storage, read_write> scores: array<f32>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3u, thread: Thread) {
    let slot = candidates[group.y] + group.x * TILE + item_of_thread(thread);
    let end = candidates[group.y + 1u];
    var item = 0u;
    if slot < end { item = candidates[slot] - params.first_position; }
    // Positions before the shard wrap around to large numbers.
    let is_absent = slot >= end || item >= params.n_items;
    if of_all_threads(is_absent) { return; }
    if is_absent { item = 0u; }
    let score = of_query(mol_scores(group.y * QUERY_QUADS * 4u, item_of(item / TILE, item % TILE)), 0u);
    if has_scores() && !is_absent { scores[slot - candidates[0]] = score; }
}
