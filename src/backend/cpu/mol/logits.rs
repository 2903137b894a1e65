//! The component logits of a tile.

use pulp::{Simd, WithSimd};

use super::item_side::MolTile;
use super::kernel::MolKernel;
use super::query::MolQuery;
use super::scratch::MolScratch;
use crate::backend::cpu::dot::micro_kernel::{Sink, TILE, row, store};
use crate::config::MolConfig;

/// Computes the logits of a tile into `work`.
pub struct LogitStage<'a> {
    pub kernel: &'a MolKernel,
    pub query: &'a MolQuery,
    pub items: &'a MolTile,
    pub work: &'a mut MolScratch,
}

impl WithSimd for LogitStage<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let LogitStage { kernel, query, items, work } = self;
        let MolConfig { item_dot_product_groups: p_x, dot_product_dimension: d_p, .. } = kernel.config;
        let inverse_temperature = 1.0 / kernel.config.temperature;
        let logits = work.logits(kernel);
        match (&query.bias, items.inverse_norms()) {
            (Some(bias), Some(norms)) => {
                let mut sink = TransformedLogits { logits, bias, norms, p_x, inverse_temperature };
                query.components.multiply(simd, items.columns(), &mut sink);
            }
            _ => {
                for (m, component) in items.columns().chunks_exact(d_p * TILE).enumerate() {
                    query.components.multiply(simd, component, &mut Logits { logits, m, p_x, inverse_temperature });
                }
            }
        }
    }
}

/// Logits of transformed queries: z = (<W_m^T f_n, x> + <f_n, b_m>) / (norm_m * temperature).
struct TransformedLogits<'a> {
    logits: &'a mut [f32],
    bias: &'a [f32],
    norms: &'a [f32],
    p_x: usize,
    inverse_temperature: f32,
}

impl<S: Simd> Sink<S> for TransformedLogits<'_> {
    #[inline(always)]
    fn take(&mut self, simd: S, l: usize, first: usize, [a, b]: [S::f32s; 2]) {
        let (bias, factor) = (simd.splat_f32s(self.bias[l]), simd.splat_f32s(self.inverse_temperature));
        let [norm_a, norm_b] = row::<S>(self.norms, l % self.p_x, first);
        let (a, b) = (simd.add_f32s(a, bias), simd.add_f32s(b, bias));
        let (a, b) = (simd.mul_f32s(a, norm_a), simd.mul_f32s(b, norm_b));
        store::<S>(self.logits, l, first, [simd.mul_f32s(a, factor), simd.mul_f32s(b, factor)]);
    }
}

/// Logits of item component m: z = <f_n, g_m> / temperature.
pub struct Logits<'a> {
    /// (L, TILE)
    pub logits: &'a mut [f32],
    /// Which item component.
    pub m: usize,
    /// P_X
    pub p_x: usize,
    /// 1 / temperature
    pub inverse_temperature: f32,
}

impl<S: Simd> Sink<S> for Logits<'_> {
    #[inline(always)]
    fn take(&mut self, simd: S, n: usize, first: usize, [a, b]: [S::f32s; 2]) {
        let factor = simd.splat_f32s(self.inverse_temperature);
        let scaled = [simd.mul_f32s(a, factor), simd.mul_f32s(b, factor)];
        store::<S>(self.logits, n * self.p_x + self.m, first, scaled);
    }
}
