//! Activations and their derivatives.

use pulp::{Simd, WithSimd};

use crate::backend::cpu::simd::math::{GeluTanh, INTERLEAVED, Relu, Silu, map_in_place, sigmoid};
use crate::ops::Activation;

/// Applies an activation to every value.
pub struct Activate<'a> {
    pub values: &'a mut [f32],
    pub activation: Activation,
}

impl WithSimd for Activate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.activation {
            Activation::Identity => {}
            Activation::Silu => map_in_place(simd, Silu, self.values),
            Activation::Relu => map_in_place(simd, Relu, self.values),
            Activation::GeluTanh => map_in_place(simd, GeluTanh, self.values),
            Activation::Gelu => self.values.iter_mut().for_each(|x| *x = gelu(*x)),
        }
    }
}

/// Multiplies each gradient by the derivative of the activation at x.
pub struct Differentiate<'a> {
    pub x: &'a [f32],
    pub gradient: &'a mut [f32],
    pub activation: Activation,
}

impl WithSimd for Differentiate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Differentiate { x, gradient, activation } = self;
        match activation {
            Activation::Identity => {}
            Activation::Silu => multiply_by_silu_derivative(simd, x, gradient),
            Activation::Relu => {
                gradient.iter_mut().zip(x).for_each(|(d, &x)| *d = if x > 0.0 { *d } else { 0.0 });
            }
            Activation::GeluTanh => gradient.iter_mut().zip(x).for_each(|(d, &x)| *d *= gelu_tanh_derivative(x)),
            Activation::Gelu => gradient.iter_mut().zip(x).for_each(|(d, &x)| *d *= gelu_derivative(x)),
        }
    }
}

/// Multiplies each gradient by the derivative of SiLU at x, s + x s (1 - s) with s = sigmoid(x).
#[inline(always)]
pub fn multiply_by_silu_derivative<S: Simd>(simd: S, x: &[f32], gradient: &mut [f32]) {
    let (x, x_tail) = S::as_simd_f32s(x);
    let (d, d_tail) = S::as_mut_simd_f32s(gradient);
    let ((x_many, x_single), (d_many, d_single)) = (x.as_chunks::<INTERLEAVED>(), d.as_chunks_mut::<INTERLEAVED>());
    for (x, d) in x_many.iter().zip(d_many) {
        *d = silu_derivative(simd, *x, *d);
    }
    for (x, d) in x_single.iter().zip(d_single) {
        [*d] = silu_derivative(simd, [*x], [*d]);
    }
    if !d_tail.is_empty() {
        let [last] = silu_derivative(simd, [simd.partial_load_f32s(x_tail)], [simd.partial_load_f32s(d_tail)]);
        simd.partial_store_f32s(d_tail, last);
    }
}

#[inline(always)]
fn silu_derivative<S: Simd, const N: usize>(simd: S, x: [S::f32s; N], mut d: [S::f32s; N]) -> [S::f32s; N] {
    let s = sigmoid(simd, x);
    for i in 0..N {
        let rest = simd.negate_mul_add_e_f32s(s[i], x[i], x[i]);
        let derivative = simd.mul_add_e_f32s(s[i], rest, s[i]);
        d[i] = simd.mul_f32s(d[i], derivative);
    }
    d
}

/// x * Phi(x) with the exact Gaussian distribution function.
fn gelu(x: f32) -> f32 {
    x * normal_distribution(x)
}

/// Phi(x) + x phi(x).
fn gelu_derivative(x: f32) -> f32 {
    const INVERSE_SQRT_TAU: f32 = 0.398_942_3;
    normal_distribution(x) + x * INVERSE_SQRT_TAU * (-0.5 * x * x).exp()
}

/// With gelu(x) = x s, s = sigmoid(2 t) and t = sqrt(2 / pi) (x + 0.044715 x^3): s + 2 x t' s (1 - s).
fn gelu_tanh_derivative(x: f32) -> f32 {
    const SQRT_8_BY_PI: f32 = 1.595_769;
    let squared = 0.044_715 * x * x;
    let sigmoid = 1.0 / (1.0 + (-SQRT_8_BY_PI * x * (1.0 + squared)).exp());
    sigmoid + x * SQRT_8_BY_PI * (1.0 + 3.0 * squared) * sigmoid * (1.0 - sigmoid)
}

fn normal_distribution(x: f32) -> f32 {
    0.5 * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2))
}
