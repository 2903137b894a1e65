// weights_uniform: the weights of a gate, as lib/mol.wgsl says, in a uniform buffer: all threads of a workgroup read the same ones, and some devices
// have another unit for that than the one that loads items.
// in  7 weights
// needs constants L4, HIDDEN, LINEAR; lib/mol.wgsl
@group(0) @binding(7) var<uniform> weights: array<vec4f, LINEAR_QUADS + LINEAR * L4>;
