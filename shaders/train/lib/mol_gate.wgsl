// mol_gate: the gate of pairs, (logits, pairs): what is normalised of it before SiLU, if anything is.
// needs of the kernel: params.pairs, params.logits, params.combination; gate: its sum of parts
// loops end at params.logits
const SILU: u32 = 0u;              // g sigmoid(g)
const NORMALISED_SILU: u32 = 1u;   // g sigmoid((g - mean) / deviation), over logits
// 2: g

struct Norm {
    mean: f32,
    deviation: f32,
}

fn norm_of(pair: u32) -> Norm {
    var sum = 0.0;
    for (var l = 0u; l < params.logits; l++) { sum += gate[l * params.pairs + pair]; }
    let mean = sum / f32(params.logits);
    var squares = 0.0;
    for (var l = 0u; l < params.logits; l++) {
        let centred = gate[l * params.pairs + pair] - mean;
        squares += centred * centred;
    }
    return Norm(mean, sqrt(squares / f32(params.logits) + 1e-5));
}
