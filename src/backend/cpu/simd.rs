//! Vectorised elementary functions.

use pulp::{Arch, Simd, WithSimd};

/// Floats in one SIMD register of this machine.
pub fn lanes() -> usize {
    struct Lanes;
    impl WithSimd for Lanes {
        type Output = usize;
        fn with_simd<S: Simd>(self, _: S) -> usize {
            S::F32_LANES
        }
    }
    Arch::new().dispatch(Lanes)
}

/// e^x for -87.3 <= x <= 88; inputs outside are clamped to that range, where the result is a normal number.
///
/// Cody-Waite reduction to |r| <= ln(2) / 2 and the degree-6 polynomial of Cephes' `expf`; relative error below
/// 2.0e-7 over the whole range (tested on every 64th float).
#[inline(always)]
pub fn exp<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    // Adding 1.5 * 2^23 rounds to an integer, which then sits in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    let x = simd.min_f32s(simd.max_f32s(x, simd.splat_f32s(-87.3)), simd.splat_f32s(88.0));
    let shifted = simd.mul_add_e_f32s(x, simd.splat_f32s(std::f32::consts::LOG2_E), simd.splat_f32s(ROUND));
    let n = simd.sub_f32s(shifted, simd.splat_f32s(ROUND));
    let r = simd.mul_add_e_f32s(n, simd.splat_f32s(-0.693_359_4), x);
    let r = simd.mul_add_e_f32s(n, simd.splat_f32s(2.121_944_4e-4), r);
    let mut p = simd.splat_f32s(1.987_569_1e-4);
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = simd.mul_add_e_f32s(p, r, simd.splat_f32s(coefficient));
    }
    let p = simd.add_f32s(simd.mul_add_e_f32s(p, simd.mul_f32s(r, r), r), simd.splat_f32s(1.0));
    let exponent = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(23));
    simd.transmute_f32s_u32s(simd.add_u32s(simd.transmute_u32s_f32s(p), exponent))
}

/// x / (1 + e^-x), the SiLU (or swish) function: x * sigmoid(x).
#[inline(always)]
pub fn silu<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let negated = simd.sub_f32s(simd.splat_f32s(0.0), x);
    simd.div_f32s(x, simd.add_f32s(simd.splat_f32s(1.0), exp(simd, negated)))
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub fn sigmoid<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let negated = simd.sub_f32s(simd.splat_f32s(0.0), x);
    let one = simd.splat_f32s(1.0);
    simd.div_f32s(one, simd.add_f32s(one, exp(simd, negated)))
}

/// max(x, 0).
#[inline(always)]
pub fn relu<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    simd.max_f32s(x, simd.splat_f32s(0.0))
}

/// A function of one value. A type and not a closure or function item, because only a method is certain to be inlined,
/// and code that is not inlined loses the instruction set it was meant for.
pub trait Unary {
    /// f(x) in every lane.
    fn apply<S: Simd>(simd: S, x: S::f32s) -> S::f32s;
}

macro_rules! unary {
    ($(#[$doc:meta])* $name:ident, $function:ident) => {
        $(#[$doc])*
        pub struct $name;
        impl Unary for $name {
            #[inline(always)]
            fn apply<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
                $function(simd, x)
            }
        }
    };
}

unary!(/** [`exp`] */ Exp, exp);
unary!(/** [`silu`] */ Silu, silu);
unary!(/** [`relu`] */ Relu, relu);

/// Applies `F` to every element of `values`.
#[inline(always)]
pub fn map_in_place<S: Simd, F: Unary>(simd: S, _: F, values: &mut [f32]) {
    let (vectors, tail) = S::as_mut_simd_f32s(values);
    for vector in vectors {
        *vector = F::apply(simd, *vector);
    }
    if !tail.is_empty() {
        let last = F::apply(simd, simd.partial_load_f32s(tail));
        simd.partial_store_f32s(tail, last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Map<'a, F>(F, &'a mut [f32]);
    impl<F: Unary> WithSimd for Map<'_, F> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            map_in_place(simd, self.0, self.1);
        }
    }

    /// Every 64th float of the range, both signs: 34 million arguments.
    fn arguments() -> impl Iterator<Item = Vec<f32>> {
        let bits = (0..0x7f80_0000u32).step_by(64).collect::<Vec<_>>();
        let chunks: Vec<Vec<u32>> = bits.chunks(1 << 20).map(<[u32]>::to_vec).collect();
        chunks.into_iter().map(|chunk| chunk.iter().flat_map(|&b| [f32::from_bits(b), -f32::from_bits(b)]).collect())
    }

    #[test]
    fn exp_is_within_its_documented_error() {
        let mut worst = 0.0f64;
        for xs in arguments() {
            let mut ys = xs.clone();
            Arch::new().dispatch(Map(Exp, &mut ys));
            for (x, y) in xs.iter().zip(&ys) {
                let exact = f64::from(x.clamp(-87.3, 88.0)).exp();
                worst = worst.max((f64::from(*y) / exact - 1.0).abs());
            }
        }
        assert!(worst < 2.0e-7, "relative error {worst:e}");
        assert!(worst > 1.0e-8, "an error this small means that nothing was compared: {worst:e}");
    }

    #[test]
    fn silu_is_within_its_documented_error() {
        let mut worst = 0.0f64;
        for xs in arguments() {
            let mut ys = xs.clone();
            Arch::new().dispatch(Map(Silu, &mut ys));
            for (x, y) in xs.iter().zip(&ys).filter(|(x, _)| x.abs() < 80.0) {
                let exact = f64::from(*x) / (1.0 + (-f64::from(*x)).exp());
                if exact != 0.0 && f64::from(*x).abs() > 1e-37 {
                    worst = worst.max((f64::from(*y) / exact - 1.0).abs());
                }
            }
        }
        assert!(worst < 4.0e-7, "relative error {worst:e}");
    }
}
