//! What is kept of the scores of a tile: those that may enter a list of the best.

use pulp::{Simd, WithSimd};

use crate::backend::cpu::dot::micro_kernel::{Sink, TILE};
use crate::backend::cpu::simd::aligned::AlignedFloats;
use crate::backend::cpu::simd::prefetch::Ahead;
use crate::backend::cpu::simd::run;

/// The scores of one tile that passed. Memory of one thread.
#[derive(Default)]
pub struct Passed {
    /// (B, TILE); only the lanes of `places` are scores of this tile.
    scores: AlignedFloats,
    places: Vec<Place>,
}

/// Lanes of a query, at least one of which passed.
struct Place {
    query: u32,
    /// The first of them, and those of them that passed.
    lane: u32,
    passed: u32,
}

/// Which of at most [`TILE`] scores are at least `floor`, in bits.
#[inline]
pub fn at_least(scores: &[f32], floor: f32) -> u32 {
    const BITS: [u32; TILE] = {
        let mut bits = [0; TILE];
        let mut lane = 0;
        while lane < TILE {
            bits[lane] = 1 << lane;
            lane += 1;
        }
        bits
    };
    scores.iter().zip(BITS).fold(0, |passed, (&score, bit)| passed | if score >= floor { bit } else { 0 })
}

impl Passed {
    /// Makes room for the scores of `n_queries` queries.
    pub fn fit(&mut self, n_queries: usize) {
        self.scores.resize(n_queries * TILE);
    }

    /// Not inlined: the loops that it is called from are short and unrolled, and seldom come here.
    #[inline(never)]
    fn keep(&mut self, query: usize, lane: usize, scores: &[f32], floor: f32) {
        self.scores[query * TILE + lane..][..scores.len()].copy_from_slice(scores);
        self.places.push(Place { query: query as u32, lane: lane as u32, passed: at_least(scores, floor) });
    }

    /// Hands the scores of every place to `take`: its query, the scores of the tile, and which of them passed, in bits; then
    /// there are none.
    pub fn drain(&mut self, mut take: impl FnMut(usize, &[f32], u32)) {
        for Place { query, lane, passed } in self.places.drain(..) {
            let query = query as usize;
            take(query, &self.scores[query * TILE..][..TILE], passed << lane);
        }
    }
}

/// Looks at sums while they are in registers: nearly all of them are of no use, and are not even stored.
pub struct Filter<'a> {
    /// (B): a score below this is of no use.
    pub floors: &'a [f32],
    /// What passes.
    pub passed: &'a mut Passed,
    /// What should be there when the tile is done.
    pub ahead: &'a mut Ahead,
}

impl Filter<'_> {
    /// Looks at all the scores (B, TILE) of a tile.
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
        let floor = self.floors[query];
        let above = simd.greater_than_or_equal_f32s(simd.max_f32s(a, b), simd.splat_f32s(floor));
        if simd.first_true_m32s(above) < S::F32_LANES {
            self.passed.keep(query, first * S::F32_LANES, bytemuck::cast_slice(&[a, b]), floor);
        }
    }

    #[inline(always)]
    fn pauses(&mut self, n: usize) {
        self.ahead.pauses(n);
    }

    #[inline(always)]
    fn pause(&mut self) {
        self.ahead.pause();
    }
}
