// table_f16: item tables of 16-bit floats. A quad is four values of one item, or NUMBERS full-precision numbers. Needs no SHADER_F16.
alias Quad = vec2u;
const NUMBERS: u32 = 2u;
fn unpacked(quad: Quad) -> vec4f { return vec4f(unpack2x16float(quad.x), unpack2x16float(quad.y)); }
fn number_of(quad: Quad, index: u32) -> f32 { return bitcast<f32>(quad[index]); }
