// dot_scan: inner products of query vectors and D4 quads of every item from FIRST_QUAD on, filtered at once. The item
// table may be that of raw embeddings or that of components. Query vectors have D4 quads.
// grid (query blocks, tiles of the chunk)   twin src/backend/cpu/dot_scan.rs
// needs constants TILE, D4, ITEM_QUADS, FIRST_QUAD; lib/table_*.wgsl; lib/lanes_*.wgsl; lib/survivors.wgsl
@compute @workgroup_size(TILE)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let query_base = group.x * D4 * 4u;
    let tile = params.first_tile + group.y;
    let item_base = (tile * ITEM_QUADS + FIRST_QUAD) * TILE + thread;
    var sums: array<Lanes, 4>;
    for (var d = 0u; d < D4; d++) {
        let x = unpacked(items[item_base + d * TILE]);
        let q = query_base + d * 4u;
        for (var c = 0u; c < 4u; c++) { sums[c] = fma(queries[q + c], Lanes(x[c]), sums[c]); }
    }
    offer_all(group.x, tile * TILE + thread, (sums[0] + sums[1]) + (sums[2] + sums[3]));
}
