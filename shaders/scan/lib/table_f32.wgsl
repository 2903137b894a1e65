// table_f32: item tables of 32-bit floats. A quad is four values of one item, or NUMBERS full-precision numbers.
alias Quad = vec4f;
const NUMBERS: u32 = 4u;
fn unpacked(quad: Quad) -> vec4f { return quad; }
fn number_of(quad: Quad, index: u32) -> f32 { return quad[index]; }
