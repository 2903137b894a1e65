//! Elementary functions on SIMD registers.

use pulp::Simd;

/// Registers that [`map_in_place`] works on at a time, their operations interleaved. An exponential is a chain of twenty dependent
/// operations; processors look ahead only a few dozen, so one chain after the other would leave them idle.
pub const INTERLEAVED: usize = 4;

/// e^x for -87.3 <= x <= 88; inputs outside are clamped to that range, where the result is a normal number. The error is below
/// 0.95 units in the last place for every float of the range, so below 1.1e-7 of the result.
#[inline(always)]
pub fn exp<S: Simd, const N: usize>(simd: S, x: [S::f32s; N]) -> [S::f32s; N] {
    exp_signed(simd, x, 1.0)
}

/// x / (1 + e^-x), the SiLU (or swish) function: x * sigmoid(x). The error is below 2.5 units in the last place for
/// |x| <= 86; x itself from 88 on; between 4.5e-38 x and 0 below -86, where e^-x is clamped.
#[inline(always)]
pub fn silu<S: Simd, const N: usize>(simd: S, x: [S::f32s; N]) -> [S::f32s; N] {
    divide_by_one_plus(simd, x, exp_signed(simd, x, -1.0))
}

/// 1 / (1 + e^-x). The error is below 2.5 units in the last place for |x| <= 86; 1 from 88 on; below -86 between 0 and
/// 4.5e-38.
#[inline(always)]
pub fn sigmoid<S: Simd, const N: usize>(simd: S, x: [S::f32s; N]) -> [S::f32s; N] {
    divide_by_one_plus(simd, [simd.splat_f32s(1.0); N], exp_signed(simd, x, -1.0))
}

/// The hyperbolic tangent, as `2 sigmoid(2 x) - 1`. The error is below 3e-7; that of a tanh near 0 is not small beside the tanh.
#[inline(always)]
pub fn tanh<S: Simd, const N: usize>(simd: S, mut x: [S::f32s; N]) -> [S::f32s; N] {
    for x in &mut x {
        *x = simd.add_f32s(*x, *x);
    }
    let mut values = sigmoid(simd, x);
    for value in &mut values {
        *value = simd.sub_f32s(simd.add_f32s(*value, *value), simd.splat_f32s(1.0));
    }
    values
}

/// `x / 2 * (1 + tanh(t))` with `t = sqrt(2 / pi) (x + 0.044715 x^3)`, as `x * sigmoid(2 t)`. The error is below 1e-6 x.
#[inline(always)]
pub fn gelu_tanh<S: Simd, const N: usize>(simd: S, x: [S::f32s; N]) -> [S::f32s; N] {
    let mut doubled = x;
    for value in &mut doubled {
        let squared = simd.mul_f32s(*value, *value);
        let factor = simd.mul_add_e_f32s(squared, simd.splat_f32s(0.071_354_814), simd.splat_f32s(1.595_769));
        *value = simd.mul_f32s(*value, factor);
    }
    divide_by_one_plus(simd, x, exp_signed(simd, doubled, -1.0))
}

/// a / (1 + b) for 0 <= b <= 2^125.
///
/// Dividing 16 floats takes as long as 30 other operations, so registers of that width iterate instead: subtracting the bits of the
/// divisor from a constant negates the exponent and mirrors the fraction, which is the inverse within 5.1 %; three terms of the series of
/// its error leave 6.5e-6; and the remainder of the quotient, times the inverse, is added. Narrower registers divide, which overlaps with
/// other work.
#[inline(always)]
fn divide_by_one_plus<S: Simd, const N: usize>(simd: S, mut a: [S::f32s; N], b: [S::f32s; N]) -> [S::f32s; N] {
    let one = simd.splat_f32s(1.0);
    let mut divisor = b;
    for divisor in &mut divisor {
        *divisor = simd.add_f32s(*divisor, one);
    }
    if S::F32_LANES < 16 {
        for i in 0..N {
            a[i] = simd.div_f32s(a[i], divisor[i]);
        }
        return a;
    }
    let (mut inverse, mut error, mut quotient) = (a, a, a);
    for i in 0..N {
        let mirrored = simd.sub_u32s(simd.splat_u32s(0x7ef3_11c7), simd.transmute_u32s_f32s(divisor[i]));
        inverse[i] = simd.transmute_f32s_u32s(mirrored);
    }
    for i in 0..N {
        error[i] = simd.negate_mul_add_e_f32s(divisor[i], inverse[i], one);
    }
    for error in &mut error {
        let squared = simd.mul_add_e_f32s(*error, *error, *error);
        *error = simd.mul_add_e_f32s(squared, *error, *error);
    }
    for i in 0..N {
        inverse[i] = simd.mul_add_e_f32s(inverse[i], error[i], inverse[i]);
    }
    for i in 0..N {
        quotient[i] = simd.mul_f32s(a[i], inverse[i]);
    }
    for i in 0..N {
        error[i] = simd.negate_mul_add_e_f32s(divisor[i], quotient[i], a[i]);
    }
    for i in 0..N {
        quotient[i] = simd.mul_add_e_f32s(error[i], inverse[i], quotient[i]);
    }
    quotient
}

/// e^(sign x) for a sign of 1 or -1, which goes into the constants at no cost.
///
/// Cody-Waite reduction to |r| <= ln(2) / 2, and the polynomial 1 + r + .. of degree 6 with the smallest relative error there:
/// 3.1e-9 before its coefficients are rounded.
#[inline(always)]
fn exp_signed<S: Simd, const N: usize>(simd: S, mut x: [S::f32s; N], sign: f32) -> [S::f32s; N] {
    // Adding 1.5 * 2^23 rounds to an integer, which then sits in the low bits of the sum.
    let round = simd.splat_f32s(12_582_912.0);
    let (least, greatest) = if sign > 0.0 { (-87.3, 88.0) } else { (-86.0, 87.3) };
    for x in &mut x {
        *x = simd.min_f32s(simd.max_f32s(*x, simd.splat_f32s(least)), simd.splat_f32s(greatest));
    }
    let mut shifted = x;
    for shifted in &mut shifted {
        *shifted = simd.mul_add_e_f32s(*shifted, simd.splat_f32s(sign * std::f32::consts::LOG2_E), round);
    }
    let mut n = shifted;
    for n in &mut n {
        *n = simd.sub_f32s(*n, round);
    }
    // The remainder of x, not of sign x: the coefficients of odd powers have the sign.
    let mut r = x;
    for part in [-0.693_359_4, 2.121_944_4e-4] {
        for i in 0..N {
            r[i] = simd.mul_add_e_f32s(n[i], simd.splat_f32s(sign * part), r[i]);
        }
    }
    let mut p = [simd.splat_f32s(1.381_459_9e-3); N];
    for coefficient in [sign * 8.368_717e-3, 4.166_839e-2, sign * 0.166_665_21, 0.499_999_94, sign, 1.0] {
        for i in 0..N {
            p[i] = simd.mul_add_e_f32s(p[i], r[i], simd.splat_f32s(coefficient));
        }
    }
    for i in 0..N {
        let exponent = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(shifted[i]), simd.splat_u32s(23));
        p[i] = simd.transmute_f32s_u32s(simd.add_u32s(simd.transmute_u32s_f32s(p[i]), exponent));
    }
    p
}

/// max(x, 0).
#[inline(always)]
pub fn relu<S: Simd, const N: usize>(simd: S, mut x: [S::f32s; N]) -> [S::f32s; N] {
    for x in &mut x {
        *x = simd.max_f32s(*x, simd.splat_f32s(0.0));
    }
    x
}

/// A function of one value. A type and not a closure or a function, because only a method can be marked `#[inline(always)]`, and code that
/// is not inlined falls back to the baseline instruction set.
pub trait Unary {
    /// f(x) in every lane.
    fn apply<S: Simd, const N: usize>(simd: S, x: [S::f32s; N]) -> [S::f32s; N];
}

macro_rules! unary {
    ($(#[$doc:meta])* $name:ident, $function:ident) => {
        $(#[$doc])*
        pub struct $name;
        impl Unary for $name {
            #[inline(always)]
            fn apply<S: Simd, const N: usize>(simd: S, x: [S::f32s; N]) -> [S::f32s; N] {
                $function(simd, x)
            }
        }
    };
}

unary!(/** [`exp`] */ Exp, exp);
unary!(/** [`silu`] */ Silu, silu);
unary!(/** [`relu`] */ Relu, relu);
unary!(/** [`sigmoid`] */ Sigmoid, sigmoid);
unary!(/** [`tanh`] */ Tanh, tanh);
unary!(/** [`gelu_tanh`] */ GeluTanh, gelu_tanh);

/// Applies `F` to every element of `values`.
#[inline(always)]
pub fn map_in_place<S: Simd, F: Unary>(simd: S, _: F, values: &mut [f32]) {
    let (vectors, tail) = S::as_mut_simd_f32s(values);
    let (many, single) = vectors.as_chunks_mut::<INTERLEAVED>();
    for vectors in many {
        *vectors = F::apply(simd, *vectors);
    }
    for vector in single {
        [*vector] = F::apply(simd, [*vector]);
    }
    if !tail.is_empty() {
        let [last] = F::apply(simd, [simd.partial_load_f32s(tail)]);
        simd.partial_store_f32s(tail, last);
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use pulp::{Arch, WithSimd};
    use rayon::prelude::*;

    use super::*;

    struct Map<'a, F>(F, &'a mut [f32]);
    impl<F: Unary> WithSimd for Map<'_, F> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            map_in_place(simd, self.0, self.1);
        }
    }

    /// 1.2 units in the last place too much, at most.
    #[inline(always)]
    fn wrong_exp<S: Simd, const N: usize>(simd: S, x: [S::f32s; N]) -> [S::f32s; N] {
        let mut values = exp(simd, x);
        for value in &mut values {
            *value = simd.mul_f32s(*value, simd.splat_f32s(1.0 + f32::EPSILON));
        }
        values
    }
    unary!(/** [`wrong_exp`] */ WrongExp, wrong_exp);

    /// Below this magnitude, as four in five floats are, series are exact to 2^-54 and much faster than the library.
    const RESCALE: f64 = 1.0 / 8192.0;

    fn exact_exp(x: f64) -> f64 {
        if x.abs() < RESCALE { 1.0 + x * (1.0 + x * (0.5 + x / 6.0)) } else { x.exp() }
    }

    fn exact_sigmoid(x: f64) -> f64 {
        if x.abs() < RESCALE { 0.5 + x * (0.25 - x * x / 48.0) } else { 1.0 / (1.0 + (-x).exp()) }
    }

    fn exact_silu(x: f64) -> f64 {
        x * exact_sigmoid(x)
    }

    /// Units in the last place of an f32 near `exact`, between `exact` and `found`.
    fn ulps(found: f32, exact: f64) -> f64 {
        let magnitude = exact.abs().max(f64::from(f32::MIN_POSITIVE));
        let unit = f64::from_bits((magnitude.to_bits() & 0x7ff0_0000_0000_0000) - (23 << 52));
        (f64::from(found) - exact).abs() / unit
    }

    /// One float in this many is tested: 37, or `RAILS_FLOAT_STRIDE`, where 1 takes about ten seconds a function on two cores. It is
    /// odd, so that every pattern of low bits occurs.
    fn stride() -> u32 {
        let stride = std::env::var("RAILS_FLOAT_STRIDE").map_or(37, |value| value.parse().expect("a number"));
        assert_eq!(stride % 2, 1, "RAILS_FLOAT_STRIDE has to be odd");
        stride
    }

    /// The greatest error of `F`, in units in the last place, over floats with bits of the range, its ends among them.
    fn worst<F: Unary>(f: impl Fn() -> F + Sync, bits: Range<u32>, exact: fn(f64) -> f64) -> f64 {
        const CHUNK: u32 = 1 << 12;
        let stride = stride();
        let chunk = |first: u32| {
            let mut found = [0.0; CHUNK as usize];
            let bits = |i: u32| (first + i * stride).min(bits.end - 1);
            found.iter_mut().zip(0..).for_each(|(x, i)| *x = f32::from_bits(bits(i)));
            Arch::new().dispatch(Map(f(), &mut found));
            let errors = found.iter().zip(0..);
            errors.fold(0.0, |worst, (&y, i)| ulps(y, exact(f32::from_bits(bits(i)).into())).max(worst))
        };
        let firsts = bits.clone().into_par_iter().step_by((CHUNK * stride) as usize);
        firsts.map(chunk).reduce(|| 0.0, f64::max)
    }

    /// As [`worst`], of all floats from `-below` to `above`.
    fn worst_between<F: Unary>(f: fn() -> F, (below, above): (f32, f32), exact: fn(f64) -> f64) -> f64 {
        let positive = worst(f, 0..above.to_bits() + 1, exact);
        worst(f, 1 << 31..(-below).to_bits() + 1, exact).max(positive)
    }

    #[test]
    fn exp_is_within_its_documented_error() {
        let error = worst_between(|| Exp, (87.3, 88.0), exact_exp);
        assert!(error < 0.95, "{error} units in the last place");
        assert!(error > 0.5, "no rounded function is as good as {error}: nothing was compared");
    }

    #[test]
    fn exp_is_clamped_outside_its_range() {
        let mut values = [-1e30, f32::NEG_INFINITY, -87.3, 88.0, 1e30, f32::INFINITY, f32::MIN, f32::MAX];
        Arch::new().dispatch(Map(Exp, &mut values));
        let [_, _, least, greatest, ..] = values;
        assert_eq!(values, [least, least, least, greatest, greatest, greatest, least, greatest]);
        assert!(least.is_normal() && greatest.is_finite());
    }

    #[test]
    fn silu_and_sigmoid_are_within_their_documented_errors() {
        let error = worst_between(|| Silu, (86.0, 86.0), exact_silu);
        assert!(error > 0.5 && error < 2.5, "SiLU: {error} units in the last place");
        let error = worst_between(|| Sigmoid, (86.0, 86.0), exact_sigmoid);
        assert!(error > 0.5 && error < 2.5, "sigmoid: {error} units in the last place");
    }

    #[test]
    fn silu_and_sigmoid_reach_their_limits() {
        let xs = [88.0, 1e10, f32::MAX, -86.0, -1e10, -1e30];
        let (mut silus, mut sigmoids) = (xs, xs);
        Arch::new().dispatch(Map(Silu, &mut silus));
        Arch::new().dispatch(Map(Sigmoid, &mut sigmoids));
        assert_eq!((&silus[..3], &sigmoids[..3]), (&xs[..3], &[1.0; 3][..]));
        for ((x, silu), sigmoid) in xs.iter().zip(silus).zip(sigmoids).skip(3) {
            assert!((0.0..4.5e-38).contains(&sigmoid) && silu <= 0.0 && silu >= x * 4.5e-38, "{x}: {silu}, {sigmoid}");
        }
    }

    #[test]
    fn tanh_and_gelu_are_within_their_documented_errors() {
        let mut worst = [0.0f64; 2];
        let xs: Vec<f32> = (-40_000..=40_000).map(|i| i as f32 * 0.0025).chain([1e30, -1e30]).collect();
        let (mut tanhs, mut gelus) = (xs.clone(), xs.clone());
        Arch::new().dispatch(Map(Tanh, &mut tanhs));
        Arch::new().dispatch(Map(GeluTanh, &mut gelus));
        for ((&x, tanh), gelu) in xs.iter().zip(tanhs).zip(gelus) {
            let x = f64::from(x);
            worst[0] = worst[0].max((f64::from(tanh) - x.tanh()).abs());
            let t = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
            worst[1] = worst[1].max((f64::from(gelu) - x / 2.0 * (1.0 + t.tanh())).abs() / x.abs().max(1e-30));
        }
        assert!(worst[0] > 1e-8 && worst[0] < 3e-7 && worst[1] > 1e-8 && worst[1] < 1e-6, "{worst:?}");
    }

    #[test]
    fn a_wrong_function_is_rejected() {
        let error = worst_between(|| WrongExp, (87.3, 88.0), exact_exp);
        assert!(error > 1.5, "an exponential that is a unit too large shows as {error}");
        let error = worst_between(|| Sigmoid, (86.0, 86.0), |x| exact_sigmoid(x) * (1.0 + 3e-7));
        assert!(error > 2.5, "{error}");
        assert_eq!((ulps(1.0, 1.0), ulps(1.0 + f32::EPSILON, 1.0), ulps(3.0, 3.0 + 2f64.powi(-23))), (0.0, 1.0, 0.5));
    }
}
