// gru_gates: gated recurrent units of four sequences at a time: which, and the activations of their gates.
// needs sequences: array<vec2u>   twin src/backend/cpu/ops/gru.rs

// Of each of the four: its first row and its length.
struct Sequences {
    first: vec4u,
    length: vec4u,
}

fn four_sequences(group: u32) -> Sequences {
    let a = sequences[4u * group];
    let b = sequences[4u * group + 1u];
    let c = sequences[4u * group + 2u];
    let d = sequences[4u * group + 3u];
    return Sequences(vec4u(a.x, b.x, c.x, d.x), vec4u(a.y, b.y, c.y, d.y));
}

// Stable for every x: exp never overflows.
fn sigmoids(x: vec4f) -> vec4f {
    let e = exp(-abs(x));
    return select(vec4f(1.0), e, x < vec4f()) / (1.0 + e);
}

// Not the built-in function, which overflows on some devices.
fn tanhs(x: vec4f) -> vec4f {
    return 2.0 * sigmoids(2.0 * x) - 1.0;
}
