//! Gradients of normalisations and of HSTU's gate, row by row.

use pulp::{Simd, WithSimd};

use super::linear::add_parts;
use crate::backend::cpu::ops::shared::{Memory, Shared};
use crate::backend::cpu::simd;
use crate::backend::cpu::simd::reduce::{sum, sum_of_products};
use crate::ops::{self, HstuGateInputs};
use crate::threads;

/// Rows that a thread takes at a time.
const PIECE: usize = 256;

/// Calls `f` with the rows `first ..` of a gradient, as many as are given to it.
fn for_each_piece(gradient: &mut [f32], width: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    let pieces = gradient.chunks_mut((PIECE * width).max(1)).enumerate();
    threads::for_each(pieces, |(piece, gradient)| f(piece * PIECE, gradient));
}

/// Adds the gradient of a layer norm of `x` (rows, width) to `gradient`.
pub fn layer_norm(x: &[f32], width: usize, eps: f32, dy: &[f32], gradient: &mut [f32]) {
    for_each_piece(gradient, width, |first, gradient| {
        let from = first * width;
        simd::run(LayerNormRows { x: &x[from..], width, eps, dy: &dy[from..], gradient });
    });
}

/// Adds the gradient of an l2 norm of `x` (rows, width) to `gradient`.
pub fn l2_norm(x: &[f32], width: usize, eps: f32, dy: &[f32], gradient: &mut [f32]) {
    for_each_piece(gradient, width, |first, gradient| {
        let from = first * width;
        simd::run(L2NormRows { x: &x[from..], width, eps, dy: &dy[from..], gradient });
    });
}

struct LayerNormRows<'a> {
    x: &'a [f32],
    width: usize,
    eps: f32,
    dy: &'a [f32],
    gradient: &'a mut [f32],
}

impl WithSimd for LayerNormRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let width = self.width;
        let rows = self.x.chunks_exact(width).zip(self.dy.chunks_exact(width));
        for (gradient, (x, dy)) in self.gradient.chunks_exact_mut(width).zip(rows) {
            let norm = LayerNorm::of(x, self.eps);
            norm.add_gradient(x, dy, gradient);
        }
    }
}

/// Mean of a row, what its deviations from it are multiplied by, and minus the derivative of that by half the sum of their squares,
/// divided by it.
struct LayerNorm {
    mean: f32,
    scale: f32,
    slope: f32,
}

impl LayerNorm {
    #[inline(always)]
    fn of(x: &[f32], eps: f32) -> LayerNorm {
        let inverse = 1.0 / x.len() as f32;
        let mean = sum(x) * inverse;
        let scale = 1.0 / (sum_of_products(x, x, mean, mean) * inverse + eps).sqrt();
        LayerNorm { mean, scale, slope: inverse * scale * scale }
    }

    /// With the unbiased deviation; see [`ops::LayerNorm`].
    #[inline(always)]
    fn unbiased(x: &[f32], eps: f32) -> LayerNorm {
        let mean = sum(x) / x.len() as f32;
        let degrees = x.len() as f32 - 1.0;
        let deviation = (sum_of_products(x, x, mean, mean) / degrees).sqrt();
        let scale = 1.0 / (deviation + eps);
        // A row of equal numbers has no slope.
        let slope = if deviation > 0.0 { scale / (deviation * degrees) } else { 0.0 };
        LayerNorm { mean, scale, slope }
    }

    /// With y = scale (x - mean): `scale (dy - mean(dy) - y mean(dy y))`.
    #[inline(always)]
    fn add_gradient(&self, x: &[f32], dy: &[f32], gradient: &mut [f32]) {
        let (mean, scale, inverse) = (self.mean, self.scale, 1.0 / x.len() as f32);
        let mean_dy = sum(dy) * inverse;
        let slope = sum_of_products(dy, x, 0.0, mean) * self.slope;
        for (gradient, (x, dy)) in gradient.iter_mut().zip(x.iter().zip(dy)) {
            *gradient += scale * (dy - mean_dy - (x - mean) * slope);
        }
    }
}

/// Adds the gradients of a layer norm with weights of `x` (rows, width) to those of x, weight and bias.
pub fn affine_layer_norm(
    memory: &Memory,
    x: &[f32],
    norm: &ops::LayerNorm<Shared>,
    dy: &[f32],
    [of_x, weight, bias]: [&mut Option<Shared>; 3],
) {
    let width = norm.width;
    // Each piece of rows has sums of its own, which are added in order.
    let mut sums = memory.zeros(x.len().div_ceil((PIECE * width).max(1)) * 2 * width);
    let pieces = memory.gradient(of_x, x.len()).chunks_mut((PIECE * width).max(1));
    let pieces = pieces.zip(sums.make_mut().chunks_mut((2 * width).max(1))).enumerate();
    threads::for_each(pieces, |(piece, (gradient, sums))| {
        let from = piece * PIECE * width;
        simd::run(AffineRows { x: &x[from..], norm, dy: &dy[from..], gradient, sums });
    });
    add_parts(&sums, 2 * width, 0, memory.gradient(weight, width));
    add_parts(&sums, 2 * width, width, memory.gradient(bias, width));
}

struct AffineRows<'a> {
    x: &'a [f32],
    norm: &'a ops::LayerNorm<Shared>,
    dy: &'a [f32],
    gradient: &'a mut [f32],
    /// (2 width): what is added to the gradients of weight and bias.
    sums: &'a mut [f32],
}

impl WithSimd for AffineRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let ops::LayerNorm { weight, width, eps, unbiased, .. } = self.norm;
        let (of_weight, of_bias) = self.sums.split_at_mut(*width);
        let mut weighted = vec![0.0; *width];
        let rows = self.x.chunks_exact(*width).zip(self.dy.chunks_exact(*width));
        for (gradient, (x, dy)) in self.gradient.chunks_exact_mut(*width).zip(rows) {
            let norm = if *unbiased { LayerNorm::unbiased(x, *eps) } else { LayerNorm::of(x, *eps) };
            for i in 0..*width {
                weighted[i] = dy[i] * weight[i];
                of_weight[i] += dy[i] * (x[i] - norm.mean) * norm.scale;
                of_bias[i] += dy[i];
            }
            norm.add_gradient(x, &weighted, gradient);
        }
    }
}

struct L2NormRows<'a> {
    x: &'a [f32],
    width: usize,
    eps: f32,
    dy: &'a [f32],
    gradient: &'a mut [f32],
}

impl WithSimd for L2NormRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let width = self.width;
        let rows = self.x.chunks_exact(width).zip(self.dy.chunks_exact(width));
        for (gradient, (x, dy)) in self.gradient.chunks_exact_mut(width).zip(rows) {
            let norm = sum_of_products(x, x, 0.0, 0.0).sqrt();
            let inverse = 1.0 / norm.max(self.eps);
            // Below eps, the norm is a constant.
            let slope = if norm > self.eps { sum_of_products(dy, x, 0.0, 0.0) * inverse * inverse } else { 0.0 };
            for (gradient, (x, dy)) in gradient.iter_mut().zip(x.iter().zip(dy)) {
                *gradient += inverse * (dy - x * slope);
            }
        }
    }
}

/// Adds the gradients of HSTU's gate to those of uvqk, of which only u is written, and of what was attended.
pub fn hstu_gate(inputs: &HstuGateInputs<Shared>, dy: &[f32], uvqk: &mut [f32], attended: &mut [f32]) {
    let (width, stride) = (inputs.shape.attended(), inputs.shape.uvqk());
    let pieces = uvqk.chunks_mut((PIECE * stride).max(1)).zip(attended.chunks_mut((PIECE * width).max(1)));
    threads::for_each(pieces.enumerate(), |(piece, (uvqk, attended))| {
        simd::run(GateRows { inputs, dy, first: piece * PIECE, uvqk, attended });
    });
}

struct GateRows<'a> {
    inputs: &'a HstuGateInputs<'a, Shared>,
    dy: &'a [f32],
    first: usize,
    uvqk: &'a mut [f32],
    attended: &'a mut [f32],
}

impl WithSimd for GateRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let HstuGateInputs { uvqk, attended, shape, eps, concat_ua } = *self.inputs;
        let (width, stride) = (shape.attended(), shape.uvqk());
        let mut da = vec![0.0; width];
        let rows = self.uvqk.chunks_exact_mut(stride).zip(self.attended.chunks_exact_mut(width));
        for (row, (du, d_attended)) in rows.enumerate() {
            let row = self.first + row;
            let (u, x) = (&uvqk[row * stride..][..width], &attended[row * width..][..width]);
            let norm = LayerNorm::of(x, eps);
            let dy = &self.dy[if concat_ua { 3 * row * width } else { row * width }..];
            let product = &dy[if concat_ua { 2 * width } else { 0 }..][..width];
            for i in 0..width {
                du[i] += product[i] * (x[i] - norm.mean) * norm.scale;
                da[i] = product[i] * u[i];
            }
            if concat_ua {
                for i in 0..width {
                    du[i] += dy[i];
                    da[i] += dy[width + i];
                }
            }
            norm.add_gradient(x, &da, d_attended);
        }
    }
}
