//! Intermediate values.

use super::kernel::MolKernel;
use crate::backend::cpu::dot::micro_kernel::TILE;
use crate::backend::cpu::simd::aligned::AlignedFloats;

/// Intermediate values of one tile and one query. Memory of one thread.
#[derive(Default)]
pub struct MolScratch {
    /// (H + L, TILE): hidden units, then logits.
    pub(super) cross: AlignedFloats,
    /// (L, TILE): gates.
    pub(super) gates: AlignedFloats,
}

impl MolScratch {
    /// Makes room for a kernel.
    pub fn fit(&mut self, kernel: &MolKernel) {
        let n_logits = kernel.n_logits();
        self.cross.resize((kernel.n_hidden + n_logits) * TILE);
        self.gates.resize(n_logits * TILE);
    }

    /// (L, TILE): logits.
    pub fn logits(&mut self, kernel: &MolKernel) -> &mut [f32] {
        &mut self.cross[kernel.n_hidden * TILE..]
    }
}
