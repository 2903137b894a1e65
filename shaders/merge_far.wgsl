// merge_far: one comparator pass of a stride of at least BLOCK, in storage memory.
// grid (comparators / WIDTH, B)   needs lib/sort.wgsl   twin the order of tests/common/compare.rs
@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let places = comparator(group.x * WIDTH + thread, params.run, params.stride);
    if max(places.x, places.y) >= length_of(group.y) { return; }
    let list = group.y * params.k;
    let a = hits[list + places.x];
    let b = hits[list + places.y];
    if better(b, a) {
        hits[list + places.x] = b;
        hits[list + places.y] = a;
    }
}
