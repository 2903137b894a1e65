// activation: element-wise functions of the encoders. // twin src/backend/cpu/ops/mod.rs

// Stable for every x: exp never overflows.
fn sigmoid(x: f32) -> f32 {
    let e = exp(-abs(x));
    return select(1.0, e, x < 0.0) / (1.0 + e);
}

fn silu(x: f32) -> f32 {
    return x * sigmoid(x);
}

// Gaussian distribution function. WGSL has no erf, so the upper tail is written Q(t) = exp(-t^2 / 2) * p(u) with
// u = 1 / (1 + 0.35 t), and p, of degree 9, is fitted for the smallest relative error on 0 <= t <= 14: 2.7e-8 exactly,
// 3e-7 in f32; |error| <= 1.1e-7. A tail has its own relative precision: gelu is precise for large negative x, too.
fn normal_cdf(x: f32) -> f32 {
    let t = abs(x);
    let u = 1.0 / (1.0 + 0.35 * t);
    var p = -0.0280465893;
    p = p * u + 0.138263017;
    p = p * u - 0.242956102;
    p = p * u + 0.143116787;
    p = p * u - 0.0106073562;
    p = p * u + 0.0992834717;
    p = p * u + 0.12180797;
    p = p * u + 0.139477849;
    p = p * u + 0.139662817;
    p = p * u - 1.88529111e-06;
    let tail = exp(-0.5 * t * t) * p;
    return select(1.0 - tail, tail, x < 0.0);
}

// x / 2 (1 + tanh(t)) with t = sqrt(2 / pi) (x + 0.044715 x^3), as x sigmoid(2 t).
fn gelu_tanh(x: f32) -> f32 {
    return x * sigmoid(x * (1.5957691 + 0.071354814 * x * x));
}

// kind: 0 identity, 1 silu, 2 relu, 3 gelu, 4 gelu by tanh
fn activate(kind: u32, x: f32) -> f32 {
    switch kind {
        case 1u: { return silu(x); }
        case 2u: { return max(x, 0.0); }
        case 3u: { return x * normal_cdf(x); }
        case 4u: { return gelu_tanh(x); }
        default: { return x; }
    }
}
