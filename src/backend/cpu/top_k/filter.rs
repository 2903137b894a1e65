//! Compares the scores of a tile with the thresholds of the queries.

use pulp::{Simd, WithSimd};

use crate::backend::cpu::dot::micro_kernel::{Sink, TILE};
use crate::backend::cpu::simd::aligned::AlignedFloats;
use crate::backend::cpu::simd::prefetch::PrefetchQueue;
use crate::backend::cpu::simd::run;

/// The scores of one tile that are at the threshold of their query or above. Scratch memory of one thread.
#[derive(Default)]
pub struct PassedScores {
    /// (B, TILE); only those of `passed` are of this tile.
    scores: AlignedFloats,
    passed: Vec<PassedLanes>,
}

/// Neighbouring lanes of a query, at least one of which passed.
struct PassedLanes {
    query: u32,
    /// The first of them.
    lane: u32,
    /// A bit for each that passed.
    bits: u32,
}

/// Which of at most [`TILE`] scores are at least `threshold`: a bit for each.
#[inline]
pub fn at_least(scores: &[f32], threshold: f32) -> u32 {
    const BITS: [u32; TILE] = {
        let mut bits = [0; TILE];
        let mut lane = 0;
        while lane < TILE {
            bits[lane] = 1 << lane;
            lane += 1;
        }
        bits
    };
    scores.iter().zip(BITS).fold(0, |passed, (&score, bit)| passed | if score >= threshold { bit } else { 0 })
}

impl PassedScores {
    /// Makes room for the scores of `n_queries` queries.
    pub fn fit(&mut self, n_queries: usize) {
        self.scores.resize(n_queries * TILE);
    }

    /// Not inlined: the loops that call it are short and unrolled, and call it rarely.
    #[inline(never)]
    fn keep(&mut self, query: usize, lane: usize, scores: &[f32], threshold: f32) {
        self.scores[query * TILE + lane..][..scores.len()].copy_from_slice(scores);
        let bits = at_least(scores, threshold);
        self.passed.push(PassedLanes { query: query as u32, lane: lane as u32, bits });
    }

    /// Removes all scores and hands them to `take`: a query, its scores of the tile, and a bit for each that passed.
    pub fn drain(&mut self, mut take: impl FnMut(usize, &[f32], u32)) {
        for PassedLanes { query, lane, bits } in self.passed.drain(..) {
            let query = query as usize;
            take(query, &self.scores[query * TILE..][..TILE], bits << lane);
        }
    }
}

/// Compares sums with thresholds while they are in registers. Nearly all are below, and are never stored.
pub struct Filter<'a> {
    /// (B): scores below these are of no use.
    pub thresholds: &'a [f32],
    /// The scores that pass.
    pub passed: &'a mut PassedScores,
    /// Memory that the next tile needs.
    pub prefetch: &'a mut PrefetchQueue,
}

impl Filter<'_> {
    /// Compares all scores (B, TILE) of a tile.
    pub fn take_all(self, scores: &[f32]) {
        run(All { filter: self, scores });
    }
}

struct All<'a> {
    filter: Filter<'a>,
    scores: &'a [f32],
}

impl WithSimd for All<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let (scores, _) = S::as_simd_f32s(self.scores);
        let registers = TILE / S::F32_LANES;
        for (query, scores) in scores.chunks_exact(registers).enumerate() {
            for first in (0..registers).step_by(2) {
                self.filter.take(simd, query, first, [scores[first], scores[first + 1]]);
            }
        }
    }
}

impl<S: Simd> Sink<S> for Filter<'_> {
    #[inline(always)]
    fn take(&mut self, simd: S, query: usize, first: usize, [a, b]: [S::f32s; 2]) {
        let threshold = self.thresholds[query];
        let above = simd.greater_than_or_equal_f32s(simd.max_f32s(a, b), simd.splat_f32s(threshold));
        if simd.first_true_m32s(above) < S::F32_LANES {
            self.passed.keep(query, first * S::F32_LANES, bytemuck::cast_slice(&[a, b]), threshold);
        }
    }

    #[inline(always)]
    fn expect_steps(&mut self, n: usize) {
        self.prefetch.spread_over(n);
    }

    #[inline(always)]
    fn step(&mut self) {
        self.prefetch.step();
    }
}
