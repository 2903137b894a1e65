//! Gradients of items: pairs are put in order of their items, so that each item's sum is made by one thread, in order of pairs.

use pulp::{Simd, WithSimd};

use super::rows::{RowSums, Term};
use crate::backend::cpu::simd::run;
use crate::threads;

/// Items that a thread takes at a time.
const PIECE: usize = 32;

/// Pairs in order of items.
#[derive(Default)]
pub struct ByItem {
    /// (M + 1): where each item's pairs begin.
    starts: Vec<usize>,
    /// Each pair, and the position that it belongs to.
    terms: Vec<Term>,
}

impl ByItem {
    /// Sorts the pairs of the positions `first_position ..`, with the items `indices` (positions, per_position), of M items.
    pub fn sort(&mut self, indices: &[u32], per_position: usize, first_position: usize, n_items: usize) {
        self.starts.clear();
        self.starts.resize(n_items + 1, 0);
        for &item in indices {
            self.starts[item as usize + 1] += 1;
        }
        for item in 0..n_items {
            self.starts[item + 1] += self.starts[item];
        }
        self.terms.resize(indices.len(), Term::default());
        for (i, items) in indices.chunks_exact(per_position).enumerate() {
            for (j, &item) in items.iter().enumerate() {
                let term = Term { pair: (i * per_position + j) as u32, row: (first_position + i) as u32 };
                let place = &mut self.starts[item as usize];
                self.terms[*place] = term;
                *place += 1;
            }
        }
        // Each start has moved to where the next was.
        self.starts.rotate_right(1);
        self.starts[0] = 0;
    }

    /// Adds what `sums` makes of each item's pairs to the gradients (M, width) of the items, and what lies behind the coefficients of
    /// a pair to the gradients (M, L) of their gates.
    pub fn add(&self, sums: RowSums, gradients: &mut [f32], gates: Option<&mut [f32]>) {
        let (width, n_logits) = (sums.counts.0 * sums.width, sums.counts.0 * sums.counts.1);
        let mut gates = gates.unwrap_or_default().chunks_mut(PIECE * n_logits);
        let pieces = gradients.chunks_mut(PIECE * width).map(|gradients| (gradients, gates.next().unwrap_or_default()));
        let pieces: Vec<_> = pieces.enumerate().collect();
        threads::for_each(pieces.into_iter(), |(piece, (gradients, gates))| {
            run(AddSums { by_item: self, sums, first: piece * PIECE, gradients, gates });
        });
    }
}

struct AddSums<'a> {
    by_item: &'a ByItem,
    sums: RowSums<'a>,
    first: usize,
    gradients: &'a mut [f32],
    gates: &'a mut [f32],
}

impl WithSimd for AddSums<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let AddSums { by_item, sums, first, gradients, gates } = self;
        let (width, n_logits) = (sums.counts.0 * sums.width, sums.counts.0 * sums.counts.1);
        let mut gates = gates.chunks_exact_mut(n_logits);
        for (item, gradient) in (first..).zip(gradients.chunks_exact_mut(width)) {
            let (start, end) = (by_item.starts[item], by_item.starts[item + 1]);
            let gate = gates.next();
            sums.add(simd, &by_item.terms[start..], end - start, gradient);
            let Some(gate) = gate else { continue };
            for term in &by_item.terms[start..end] {
                let row = &sums.coefficients[term.pair as usize * sums.strides[0] + n_logits..][..n_logits];
                add(simd, row, gate);
            }
        }
    }
}

/// Adds values to sums.
#[inline(always)]
fn add<S: Simd>(simd: S, values: &[f32], sums: &mut [f32]) {
    let ((values, values_rest), (sums, sums_rest)) = (S::as_simd_f32s(values), S::as_mut_simd_f32s(sums));
    for (sum, &value) in sums.iter_mut().zip(values) {
        *sum = simd.add_f32s(*sum, value);
    }
    sums_rest.iter_mut().zip(values_rest).for_each(|(sum, value)| *sum += value);
}
