// weights_storage: the weights of a gate, as lib/mol.wgsl says, in a storage buffer.
// in  7 weights
@group(0) @binding(7) var<storage, read> weights: array<vec4f>;
