//! Gated recurrent units over packed sequences. Sequences of similar length advance together, so that the recurrent weights are
//! read once for all of them.

use std::cmp::Reverse;

use pulp::{Simd, WithSimd};

use super::Shared;
use super::gemm::add_product;
use crate::backend::cpu::simd;
use crate::backend::cpu::simd::math::{Sigmoid, Tanh, map_in_place};
use crate::ops::Linear;
use crate::threads;

/// Most sequences that advance together.
const TOGETHER: usize = 32;

/// See [`Ops::gru`](crate::ops::Ops::gru).
pub struct Gru<'a> {
    pub x: &'a [f32],
    pub recurrent: &'a Linear<Shared>,
    pub offsets: &'a [u32],
}

/// A sequence: its first row and its length, and its part of an array that has something for each row.
pub struct Sequence<'a> {
    pub first: usize,
    pub length: usize,
    pub rows: &'a mut [f32],
}

/// The sequences of an array (rows, width), in groups of those that advance together, the longest first.
pub fn for_each_group(offsets: &[u32], array: &mut [f32], width: usize, f: impl Fn(&mut [Sequence]) + Sync) {
    let mut rest = array;
    let mut sequences: Vec<Sequence> = Vec::with_capacity(offsets.len());
    for pair in offsets.windows(2) {
        let (first, length) = (pair[0] as usize, (pair[1] - pair[0]) as usize);
        let (rows, others) = rest.split_at_mut(length * width);
        sequences.push(Sequence { first, length, rows });
        rest = others;
    }
    sequences.sort_by_key(|sequence| Reverse(sequence.length));
    let together = sequences.len().div_ceil(threads::count()).clamp(1, TOGETHER);
    threads::for_each(sequences.chunks_mut(together), f);
}

/// How many sequences of a group have a row `step`.
pub fn active(group: &[Sequence], step: usize) -> usize {
    group.partition_point(|sequence| sequence.length > step)
}

/// `rows` (any, 3 hidden): what states (any, hidden) add to the gates.
pub fn of_states(recurrent: &Linear<Shared>, states: &[f32], rows: &mut [f32]) {
    match &recurrent.bias {
        Some(bias) => rows.chunks_exact_mut(recurrent.n_out).for_each(|row| row.copy_from_slice(bias)),
        None => rows.fill(0.0),
    }
    add_product(states, &recurrent.weight, (recurrent.n_in, recurrent.n_out), rows);
}

impl Gru<'_> {
    /// Writes the states (rows, hidden).
    pub fn run(&self, out: &mut [f32]) {
        let hidden = self.recurrent.n_in;
        for_each_group(self.offsets, out, hidden, |group| {
            let mut state = vec![0.0; group.len() * hidden];
            let mut gates = vec![0.0; group.len() * 3 * hidden];
            for step in 0..group.first().map_or(0, |longest| longest.length) {
                let active = active(group, step);
                let gates = &mut gates[..active * 3 * hidden];
                of_states(self.recurrent, &state, gates);
                let rows = gates.chunks_exact_mut(3 * hidden).zip(state.chunks_exact_mut(hidden));
                for ((gates, state), sequence) in rows.zip(&mut group[..active]) {
                    let x = &self.x[(sequence.first + step) * 3 * hidden..][..3 * hidden];
                    simd::run(Unit { x, gates, state });
                    sequence.rows[step * hidden..][..hidden].copy_from_slice(state);
                }
            }
        });
    }
}

/// One step of one sequence: `gates` (3 hidden) holds what the state adds, and then r, z and n.
struct Unit<'a> {
    x: &'a [f32],
    gates: &'a mut [f32],
    state: &'a mut [f32],
}

impl WithSimd for Unit<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let hidden = self.state.len();
        gates(simd, self.x, self.gates);
        let (update, candidate) = self.gates[hidden..].split_at(hidden);
        for ((state, update), candidate) in self.state.iter_mut().zip(update).zip(candidate) {
            *state = (1.0 - update) * candidate + update * *state;
        }
    }
}

/// r, z and n (3 hidden) in the place of what the state adds to them; `x` (3 hidden) is what the input adds.
#[inline(always)]
pub fn gates<S: Simd>(simd: S, x: &[f32], gates: &mut [f32]) {
    let hidden = x.len() / 3;
    let (reset_update, candidate) = gates.split_at_mut(2 * hidden);
    reset_update.iter_mut().zip(x).for_each(|(gate, x)| *gate += x);
    map_in_place(simd, Sigmoid, reset_update);
    for ((candidate, reset), x) in candidate.iter_mut().zip(&*reset_update).zip(&x[2 * hidden..]) {
        *candidate = *candidate * reset + x;
    }
    map_in_place(simd, Tanh, candidate);
}
