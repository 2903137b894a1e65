// quantize_queries: vectors -> fixed-point vectors, each of integers in -32512 .. 32512 times a power of two. An integer is two signed
// bytes, 256 * high + low. Of four values the high bytes are one word, the low bytes the next one.
//
// The scale is the least power of two that lets the largest magnitude pass, so dividing by it is exact, and every device
// rounds alike. It is 2^-125 or more: numbers that a device may flush to zero are zero.
// in   0 params  1 vectors (n_vectors, width)
// out  2 planes (n_vectors, ceil(width / 4), 2)  3 scales (n_vectors)
// loops end at the width of a vector
// grid folded vectors   twin src/backend/cpu/dot/quantized.rs
struct Params {
    n_vectors: u32,
    width: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> vectors: array<f32>;
@group(0) @binding(2) var<storage, read_write> planes: array<u32>;
@group(0) @binding(3) var<storage, read_write> scales: array<f32>;

const WORKGROUP: u32 = 64u;

// Bits of the largest magnitude; as integers they have the order of the numbers.
var<workgroup> largest: atomic<u32>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) thread: u32,
) {
    let vector = group.x + group.y * groups.x;
    if vector >= params.n_vectors { return; }
    if thread == 0u { atomicStore(&largest, 0u); }
    workgroupBarrier();
    let first = vector * params.width;
    var own = 0u;
    for (var column = thread; column < params.width; column += WORKGROUP) {
        own = max(own, bitcast<u32>(vectors[first + column]) & 0x7fffffffu);
    }
    atomicMax(&largest, own);
    workgroupBarrier();

    // The largest magnitude becomes an integer from 2^14 on; where it would exceed 32512 the addition carries, and the scale
    // is twice as large.
    let exponent = max((atomicLoad(&largest) + 0x1ffffu) >> 23u, 16u) - 14u;
    let inverse = bitcast<f32>((254u - exponent) << 23u);
    if thread == 0u { scales[vector] = bitcast<f32>(exponent << 23u); }
    let words = (params.width + 3u) / 4u;
    for (var word = thread; word < words; word += WORKGROUP) {
        var high = 0u;
        var low = 0u;
        for (var i = 0u; i < min(4u, params.width - word * 4u); i++) {
            let value = i32(round(vectors[first + word * 4u + i] * inverse));
            let upper = (value + 128) >> 8u;
            high |= (u32(upper) & 255u) << (8u * i);
            low |= (u32(value - upper * 256) & 255u) << (8u * i);
        }
        planes[(vector * words + word) * 2u] = high;
        planes[(vector * words + word) * 2u + 1u] = low;
    }
}
