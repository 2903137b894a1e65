// table_i8: item tables of 8-bit integers. A quad is four integers of one item, or a full-precision number: the scale of a vector.
alias Quad = u32;
const NUMBERS: u32 = 1u;
fn unpacked(quad: Quad) -> vec4f {
    // The sign of each byte is spread from the top of the word.
    return vec4f((vec4i(bitcast<i32>(quad)) << vec4u(24u, 16u, 8u, 0u)) >> vec4u(24u));
}
fn number_of(quad: Quad, index: u32) -> f32 { return bitcast<f32>(quad); }
