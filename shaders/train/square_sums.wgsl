// square_sums: the sum of squares of each EACH numbers, and whether one of them is not finite.
// in   0 params  1 x (n)    out 2 y (ceil(n / EACH)): bits of the sum, and 1 if a number is not finite
// grid folded ceil(n / EACH)   needs lib/reduction.wgsl   twin src/backend/cpu/training.rs
// the loop over numbers ends after EACH / WORKGROUP turns
struct Params {
    n: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<vec2u>;

const EACH: u32 = 2048u;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) grid: vec3u,
    @builtin(local_invocation_index) thread: u32,
) {
    let index = group.x + group.y * grid.x;
    let end = min((index + 1u) * EACH, params.n);
    if index * EACH >= params.n {
        return;
    }
    var sum = 0.0;
    var flag = 0.0;
    for (var i = index * EACH + thread; i < end; i += WORKGROUP) {
        sum += x[i] * x[i];
        // Compilers may take it that there are no such numbers.
        if (bitcast<u32>(x[i]) & 0x7f800000u) == 0x7f800000u { flag = 1.0; }
    }
    sum = sum_of_threads(thread, sum);
    let any_flag = greatest_of_threads(thread, flag);
    if thread == 0u { y[index] = vec2u(bitcast<u32>(sum), u32(any_flag)); }
}
