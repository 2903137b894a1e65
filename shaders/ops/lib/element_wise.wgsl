// element_wise: the entry point of the kernels whose threads compute one element each: element(i) for every i < n.
// needs of the kernel: params.n, fn element(i: u32)
const WORKGROUP: u32 = 256u;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) grid: vec3u,
    @builtin(local_invocation_index) thread: u32,
) {
    let i = (group.x + group.y * grid.x) * WORKGROUP + thread;
    if i < params.n {
        element(i);
    }
}
