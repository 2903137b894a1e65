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

    /// Adds what `sums` makes of each item's pairs to the gradients (M, width) of the items.
    pub fn add(&self, sums: RowSums, gradients: &mut [f32]) {
        let width = sums.counts.0 * sums.width;
        threads::for_each(gradients.chunks_mut((PIECE * width).max(1)).enumerate(), |(piece, gradients)| {
            run(AddSums { by_item: self, sums, first: piece * PIECE, gradients });
        });
    }

    /// Adds each item's rows of `values` (pairs, width) to the gradients (M, width) of the items.
    pub fn add_rows(&self, values: &[f32], width: usize, gradients: &mut [f32]) {
        threads::for_each_row(gradients, width, PIECE, |item, sums| {
            for term in self.of(item) {
                let row = &values[term.pair as usize * width..][..width];
                sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            }
        });
    }

    fn of(&self, item: usize) -> &[Term] {
        &self.terms[self.starts[item]..self.starts[item + 1]]
    }
}

struct AddSums<'a> {
    by_item: &'a ByItem,
    sums: RowSums<'a>,
    first: usize,
    gradients: &'a mut [f32],
}

impl WithSimd for AddSums<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = self.sums.counts.0 * self.sums.width;
        for (i, gradient) in self.gradients.chunks_exact_mut(width).enumerate() {
            let terms = self.by_item.of(self.first + i);
            if !terms.is_empty() {
                self.sums.add(simd, terms, gradient);
            }
        }
    }
}
