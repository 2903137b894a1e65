// sort_blocks: moves survivors to the hits, every block of BLOCK sorted.
// grid (blocks of k, B)   needs lib/sort.wgsl, lib/sort_tile.wgsl   twin the order of tests/common/compare.rs
@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let n = length_of(group.y);
    for (var i = thread; i < BLOCK; i += WIDTH) {
        let place = group.x * BLOCK + i;
        tile[i] = vec2u(0u);
        if place < n { tile[i] = survivors[group.y * params.capacity + place]; }
    }
    workgroupBarrier();
    for (var run = 2u; run <= BLOCK; run *= 2u) { merge_tile(thread, run, run / 2u); }
    for (var i = thread; i < BLOCK; i += WIDTH) {
        let place = group.x * BLOCK + i;
        if place < n { hits[group.y * params.k + place] = tile[i]; }
    }
}
