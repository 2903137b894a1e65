// Item tables of 16-bit floats: four values of one item. Needs no SHADER_F16.
alias Quad = vec2u;
fn unpacked(quad: Quad) -> vec4f { return vec4f(unpack2x16float(quad.x), unpack2x16float(quad.y)); }
