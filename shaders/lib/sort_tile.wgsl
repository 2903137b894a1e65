// sort_tile: comparator passes over one block in workgroup memory, for sort_blocks and merge_near.
var<workgroup> tile: array<vec2u, BLOCK>;

// Passes of strides from `first_stride` down to 1; ends with a barrier.
fn merge_tile(thread: u32, run: u32, first_stride: u32) {
    for (var stride = first_stride; stride > 0u; stride /= 2u) {
        for (var index = thread; index < BLOCK / 2u; index += WIDTH) {
            let places = comparator(index, run, stride);
            let a = tile[places.x];
            let b = tile[places.y];
            if better(b, a) {
                tile[places.x] = b;
                tile[places.y] = a;
            }
        }
        workgroupBarrier();
    }
}
