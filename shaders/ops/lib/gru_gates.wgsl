// gru_gates: activations of the gates of gated recurrent units, of four sequences. // twin src/backend/cpu/ops/gru.rs

// Stable for every x: exp never overflows.
fn sigmoids(x: vec4f) -> vec4f {
    let e = exp(-abs(x));
    return select(vec4f(1.0), e, x < vec4f()) / (1.0 + e);
}

// Not the built-in function, which overflows on some devices.
fn tanhs(x: vec4f) -> vec4f {
    return 2.0 * sigmoids(2.0 * x) - 1.0;
}
