// weights_uniform: the weights of a gate, as lib/mol.wgsl says, in a uniform buffer: all threads of a workgroup read the same ones, and some devices
// have another unit for that than the one that loads items.
// in  7 weights
// needs lib/mol.wgsl and lib/whole.wgsl
@group(0) @binding(7) var<uniform> weights: array<vec4f, SECTION_QUADS>;
