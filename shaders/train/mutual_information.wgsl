// mutual_information: of the gate's probabilities of each `chunk` pairs, their sums, and those of p log(p + 1e-6).
// in   0 params  1 probabilities (L, pairs)    out 2 y (ceil(pairs / chunk), 2, L)
// grid folded ceil(n / WORKGROUP), n = ceil(pairs / chunk) * L   needs lib/element_wise.wgsl, lib/mutual_information.wgsl
// twin src/backend/cpu/loss/mutual_information.rs
// the loop over pairs ends after chunk turns
struct Params {
    n: u32,
    pairs: u32,
    logits: u32,   // L
    chunk: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> probabilities: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

fn element(i: u32) {
    let chunk = i / params.logits;
    let l = i % params.logits;
    let end = min((chunk + 1u) * params.chunk, params.pairs);
    var sums: vec2f;
    for (var pair = chunk * params.chunk; pair < end; pair++) {
        let p = probabilities[l * params.pairs + pair];
        sums += vec2f(p, information(p));
    }
    y[2u * chunk * params.logits + l] = sums.x;
    y[(2u * chunk + 1u) * params.logits + l] = sums.y;
}
