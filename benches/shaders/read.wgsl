// read: how fast the device reads memory at most. Neighbouring threads read neighbouring quads, four loads at a time.
// in  0 params  1 values    out 2 sink, never written to
struct Params {
    quads: u32,   // a multiple of four times the number of threads
    never: f32,
    unused_a: u32,
    unused_b: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> values: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> sink: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
    let threads = grid.x * 256u;
    var a = vec4f(0.0);
    var b = vec4f(0.0);
    var c = vec4f(0.0);
    var d = vec4f(0.0);
    for (var i = id.x; i < params.quads; i += 4u * threads) {
        a += values[i];
        b += values[i + threads];
        c += values[i + 2u * threads];
        d += values[i + 3u * threads];
    }
    let total = (a + b) + (c + d);
    if any(total == vec4f(params.never)) { sink[0] = total.x; }
}
