//! Upper bounds of scores.

use pulp::{Simd, WithSimd};

use super::kernel::MolKernel;
use super::scratch::MolScratch;
use crate::backend::cpu::dot::micro_kernel::TILE;

/// Upper bounds of the scores of a tile whose logits are in `work`: a mixture is not greater than its largest logit, and rounding adds at
/// most a few units in the last place for each logit to a computed score.
pub struct BoundStage<'a> {
    pub kernel: &'a MolKernel,
    pub work: &'a mut MolScratch,
    pub bounds: &'a mut [f32; TILE],
}

impl WithSimd for BoundStage<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let n_logits = self.kernel.n_logits();
        let slack = simd.splat_f32s((4 * n_logits + 16) as f32 * f32::EPSILON);
        let (logits, _) = S::as_simd_f32s(self.work.logits(self.kernel));
        let registers = TILE / S::F32_LANES;
        for register in 0..registers {
            let (mut greatest, mut magnitude) = (simd.splat_f32s(f32::NEG_INFINITY), simd.splat_f32s(0.0));
            for row in logits.chunks_exact(registers) {
                greatest = simd.max_f32s(greatest, row[register]);
                magnitude = simd.max_f32s(magnitude, simd.abs_f32s(row[register]));
            }
            S::as_mut_simd_f32s(self.bounds).0[register] = simd.mul_add_e_f32s(magnitude, slack, greatest);
        }
    }
}
