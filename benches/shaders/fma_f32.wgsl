// fma_f32: what the device can do at most in f32. Every thread has 16 independent chains of fused multiply-adds in registers.
// in  0 params    out 1 sink, never written to
struct Params {
    rounds: u32,
    factor: f32,
    step: f32,
    never: f32,   // what no sum can be
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> sink: array<f32>;

struct Sums { a: vec4f, b: vec4f, c: vec4f, d: vec4f }

fn round(s: Sums, factor: vec4f, step: vec4f) -> Sums {
    return Sums(fma(s.a, factor, step), fma(s.b, factor, step), fma(s.c, factor, step), fma(s.d, factor, step));
}

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let factor = vec4f(params.factor);
    let step = vec4f(params.step);
    let first = vec4f(0.0, 1.0, 2.0, 3.0) + f32(id.x % 64u);
    var s = Sums(first, first + 4.0, first + 8.0, first + 12.0);
    for (var i = 0u; i < params.rounds; i++) {
        s = round(s, factor, step);
        s = round(s, factor, step);
        s = round(s, factor, step);
        s = round(s, factor, step);
        s = round(s, factor, step);
        s = round(s, factor, step);
        s = round(s, factor, step);
        s = round(s, factor, step);
    }
    let total = (s.a + s.b) + (s.c + s.d);
    if any(total == vec4f(params.never)) { sink[0] = total.x; }
}
