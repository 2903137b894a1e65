// dot4_i8: what the device can do at most in products of four packed 8-bit integers, summed in 32 bits. Every thread has
// 16 independent chains of them in registers.
// in  0 params    out 1 sink, never written to
struct Params {
    rounds: u32,
    factor: u32,
    never: i32,   // what no sum is, most likely
    unused: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> sink: array<i32>;

struct Sums { a: vec4i, b: vec4i, c: vec4i, d: vec4i }

fn products(s: vec4i, factor: u32) -> vec4i {
    let u = bitcast<vec4u>(s);
    return s + vec4i(dot4I8Packed(u.x, factor), dot4I8Packed(u.y, factor), dot4I8Packed(u.z, factor), dot4I8Packed(u.w, factor));
}

fn round(s: Sums, factor: u32) -> Sums {
    return Sums(products(s.a, factor), products(s.b, factor), products(s.c, factor), products(s.d, factor));
}

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let first = vec4i(1, 20, 300, 4000) * i32(id.x + 1u);
    var s = Sums(first, first + 5, first + 60, first + 700);
    for (var i = 0u; i < params.rounds; i++) {
        s = round(s, params.factor);
        s = round(s, params.factor);
        s = round(s, params.factor);
        s = round(s, params.factor);
        s = round(s, params.factor);
        s = round(s, params.factor);
        s = round(s, params.factor);
        s = round(s, params.factor);
    }
    let total = (s.a + s.b) + (s.c + s.d);
    if all(total == vec4i(params.never)) { sink[0] = total.x; }
}
