// slope: derivatives of the activations. // twin src/backend/cpu/ops/activation.rs
// needs lib/activation.wgsl
fn silu_slope(x: f32) -> f32 {
    let s = sigmoid(x);
    return s + x * s * (1.0 - s);
}

// kind: as for activate
fn slope(kind: u32, x: f32) -> f32 {
    switch kind {
        case 1u: { return silu_slope(x); }
        case 2u: { return select(0.0, 1.0, x > 0.0); }
        case 3u: { return normal_cdf(x) + x * 0.3989422804 * exp(-0.5 * x * x); }
        case 4u: {
            let s = sigmoid(x * (1.5957691 + 0.071354814 * x * x));
            return s + x * s * (1.0 - s) * (1.5957691 + 3.0 * 0.071354814 * x * x);
        }
        default: { return 1.0; }
    }
}
