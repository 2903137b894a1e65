// Item tables of 32-bit floats: four values of one item.
alias Quad = vec4f;
fn unpacked(quad: Quad) -> vec4f { return quad; }
