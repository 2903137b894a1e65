// fma_f16: what the device can do at most in f16, two of which most devices put into one register. As fma_f32.
// in  0 params    out 1 sink, never written to
enable f16;

struct Params {
    rounds: u32,
    factor: f32,
    step: f32,
    never: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> sink: array<f32>;

struct Sums { a: vec4h, b: vec4h, c: vec4h, d: vec4h }

fn round(s: Sums, factor: vec4h, step: vec4h) -> Sums {
    return Sums(fma(s.a, factor, step), fma(s.b, factor, step), fma(s.c, factor, step), fma(s.d, factor, step));
}

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let factor = vec4h(vec4f(params.factor));
    let step = vec4h(vec4f(params.step));
    let first = vec4h(vec4f(0.0, 1.0, 2.0, 3.0) + f32(id.x % 64u));
    let four = vec4h(vec4f(4.0));
    var s = Sums(first, first + four, first - four, first * four);
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
    let total = vec4f((s.a + s.b) + (s.c + s.d));
    if any(total == vec4f(params.never)) { sink[0] = total.x; }
}
