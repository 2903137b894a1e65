//! Gradient of gated recurrent units. What depends on one row only is computed for all rows at once; from step to step goes the gradient
//! of the state alone.

use pulp::{Simd, WithSimd};

use super::linear::linear_gradient;
use crate::backend::cpu::ops::gemm::{Matrix, multiply};
use crate::backend::cpu::ops::gru::{active, for_each_group, gates, of_states};
use crate::backend::cpu::ops::shared::{Memory, Shared};
use crate::backend::cpu::simd;
use crate::ops::{Activation, GruInputs, LinearGradients, LinearInputs};
use crate::threads;

/// Rows that a thread takes at a time.
const PIECE: usize = 64;

/// See [`GradientOps::gru_gradient`](crate::ops::GradientOps::gru_gradient).
pub fn gru_gradient(memory: &Memory, inputs: &GruInputs<Shared>, dy: &[f32], into: LinearGradients<Shared>) {
    let (hidden, n_rows) = (inputs.recurrent.n_in, inputs.x.len() / inputs.recurrent.n_out.max(1));
    let before = states_before(memory, inputs, hidden);
    // Of each row, what its step needs: r, z, n, and what the state adds to the candidate.
    let width = 4 * hidden;
    let mut rows = memory.unspecified(n_rows * width);
    threads::for_each(rows.make_mut().chunks_mut((PIECE * width).max(1)).enumerate(), |(piece, rows)| {
        let mut added = vec![0.0; rows.len() / 4 * 3];
        of_states(inputs.recurrent, &before[piece * PIECE * hidden..], &mut added);
        let x = &inputs.x[piece * PIECE * 3 * hidden..];
        simd::run(Recompute { hidden, x, added: &added, rows });
    });
    // The same places then hold the gradients of the three parts of x, and of what the state adds to the candidate.
    for_each_group(inputs.offsets, rows.make_mut(), width, |group| {
        let mut of_state = vec![0.0; group.len() * hidden];
        let mut of_added = vec![0.0; group.len() * 3 * hidden];
        for step in (0..group.first().map_or(0, |longest| longest.length)).rev() {
            let active = active(group, step);
            let of_state = &mut of_state[..active * hidden];
            let parts = of_state.chunks_exact_mut(hidden).zip(of_added.chunks_exact_mut(3 * hidden));
            for ((of_state, of_added), sequence) in parts.zip(&mut group[..active]) {
                let cells = (sequence.first + step) * hidden..(sequence.first + step + 1) * hidden;
                let (dy, before) = (&dy[cells.clone()], &before[cells]);
                let row = &mut sequence.rows[step * width..][..width];
                simd::run(Step { dy, before, row, of_state, of_added });
            }
            let weight = Matrix::rows(&inputs.recurrent.weight, 3 * hidden).transposed();
            let of_added = Matrix::rows(&of_added, 3 * hidden);
            multiply((active, 3 * hidden, hidden), 1.0, of_added, weight, 1.0, of_state, hidden);
        }
    });
    let of_x = memory.gradient(into.x, inputs.x.len());
    let mut of_added = memory.unspecified(inputs.x.len());
    let sums =
        of_x.chunks_exact_mut((3 * hidden).max(1)).zip(of_added.make_mut().chunks_exact_mut((3 * hidden).max(1)));
    for ((of_x, of_added), row) in sums.zip(rows.chunks_exact(width.max(1))) {
        of_x.iter_mut().zip(row).for_each(|(sum, d)| *sum += d);
        of_added[..2 * hidden].copy_from_slice(&row[..2 * hidden]);
        of_added[2 * hidden..].copy_from_slice(&row[3 * hidden..]);
    }
    // What the states before add is a linear layer; their own gradient has been passed on already.
    let (x, layer) = (&before, inputs.recurrent);
    let activation = Activation::Identity;
    let layer = LinearInputs { x, rows: n_rows, layer, activation, before_activation: &of_added };
    let mut passed_on = None;
    linear_gradient(memory, &layer, &of_added, LinearGradients { x: &mut passed_on, ..into });
}

/// (rows, hidden): the state before each row.
fn states_before(memory: &Memory, inputs: &GruInputs<Shared>, hidden: usize) -> Shared {
    let mut before = memory.zeros(inputs.states.len());
    let values = before.make_mut();
    for pair in inputs.offsets.windows(2).filter(|pair| pair[1] > pair[0]) {
        let (first, end) = (pair[0] as usize * hidden, pair[1] as usize * hidden);
        values[first + hidden..end].copy_from_slice(&inputs.states[first..end - hidden]);
    }
    before
}

/// r, z, n, and what the state adds to n, of some rows.
struct Recompute<'a> {
    hidden: usize,
    /// (rows, 3 hidden), and more.
    x: &'a [f32],
    /// (rows, 3 hidden): what the state adds.
    added: &'a [f32],
    /// (rows, 4 hidden)
    rows: &'a mut [f32],
}

impl WithSimd for Recompute<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let hidden = self.hidden;
        let parts = self.x.chunks_exact(3 * hidden).zip(self.added.chunks_exact(3 * hidden));
        for (row, (x, added)) in self.rows.chunks_exact_mut(4 * hidden).zip(parts) {
            row[..3 * hidden].copy_from_slice(added);
            row[3 * hidden..].copy_from_slice(&added[2 * hidden..]);
            gates(simd, x, &mut row[..3 * hidden]);
        }
    }
}

/// One step of one sequence, backwards.
struct Step<'a> {
    /// (hidden): gradient of the state as a result.
    dy: &'a [f32],
    /// (hidden): the state before.
    before: &'a [f32],
    /// (4 hidden): see [`gru_gradient`].
    row: &'a mut [f32],
    /// (hidden): gradient of the state, from later steps; then that of the state before, so far as it is not by way of the weights.
    of_state: &'a mut [f32],
    /// (3 hidden): gradient of what the state before adds.
    of_added: &'a mut [f32],
}

impl WithSimd for Step<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let hidden = self.dy.len();
        let (r, rest) = self.row.split_at_mut(hidden);
        let (z, rest) = rest.split_at_mut(hidden);
        let (n, added) = rest.split_at_mut(hidden);
        let (of_r, rest) = self.of_added.split_at_mut(hidden);
        let (of_z, of_n) = rest.split_at_mut(hidden);
        for i in 0..hidden {
            let d = self.of_state[i] + self.dy[i];
            let of_candidate = d * (1.0 - z[i]) * (1.0 - n[i] * n[i]);
            let of_update = d * (self.before[i] - n[i]) * z[i] * (1.0 - z[i]);
            let of_reset = of_candidate * added[i] * r[i] * (1.0 - r[i]);
            let of_added = of_candidate * r[i];
            self.of_state[i] = d * z[i];
            (r[i], z[i], n[i], added[i]) = (of_reset, of_update, of_candidate, of_added);
            (of_r[i], of_z[i], of_n[i]) = (of_reset, of_update, of_added);
        }
    }
}
