//! Running top-k of one query: all threads share a list, and each of them keeps what it has found since it last added to it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::backend::ScoredPosition;

/// Hits that a thread finds at least before it adds them to the list: cutting it more often would take longer than what a tighter
/// threshold saves.
const LEAST: usize = 64;

/// The best k of all pairs, by score descending, then position ascending: a total order, so the result does not depend on the
/// order in which they are found, nor on who finds them.
pub struct TopK {
    k: usize,
    keys: Mutex<Vec<u64>>,
    /// What keys have to be above: that of the k-th best.
    threshold: AtomicU64,
}

impl TopK {
    /// For 1 <= `k`.
    pub fn new(k: usize) -> TopK {
        TopK { k, keys: Mutex::default(), threshold: AtomicU64::new(0) }
    }

    /// The best k (or all, if fewer were found), best first, of what has been handed over.
    pub fn sorted(&self) -> Vec<ScoredPosition> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.sort_unstable_by(|a, b| b.cmp(a));
        let hit = |key: u64| ScoredPosition { position: !(key as u32), score: score_of(key) };
        keys.iter().copied().map(hit).collect()
    }

    /// Takes over all `more` keys, keeps the best k, and says what further ones have to be above.
    fn take(&self, more: &mut Vec<u64>) -> u64 {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.append(more);
        if keys.len() > self.k {
            let (_, kth, _) = keys.select_nth_unstable_by(self.k - 1, |a, b| b.cmp(a));
            self.threshold.store(*kth, Ordering::Relaxed);
            keys.truncate(self.k);
        }
        self.threshold.load(Ordering::Relaxed)
    }
}

/// What one thread has found for a [`TopK`].
pub struct Finds<'a> {
    all: &'a TopK,
    keys: Vec<u64>,
    threshold: u64,
}

impl<'a> Finds<'a> {
    /// Nothing yet.
    pub fn new(all: &'a TopK) -> Finds<'a> {
        Finds { all, keys: Vec::new(), threshold: 0 }
    }

    /// A score below this cannot enter any more.
    #[inline]
    pub fn floor(&self) -> f32 {
        if self.threshold == 0 { f32::NEG_INFINITY } else { score_of(self.threshold) }
    }

    /// Takes note of what others have found.
    #[inline]
    pub fn look(&mut self) {
        self.threshold = self.all.threshold.load(Ordering::Relaxed);
    }

    /// Offers one pair, and says whether the floor may have risen.
    #[inline]
    pub fn push(&mut self, position: u32, score: f32) -> bool {
        let key = key_of(position, score);
        if key > self.threshold {
            self.keys.push(key);
            if self.keys.len() >= LEAST.max(self.all.k / 2) {
                self.hand_over();
                return true;
            }
        }
        false
    }

    /// Adds everything to the list of all.
    pub fn hand_over(&mut self) {
        self.threshold = self.all.take(&mut self.keys);
    }
}

/// Greater keys are better: the score in an order-preserving integer form, then the complement of the position.
fn key_of(position: u32, score: f32) -> u64 {
    u64::from(ordered(score)) << 32 | u64::from(!position)
}

fn score_of(key: u64) -> f32 {
    unordered((key >> 32) as u32)
}

/// An integer that is greater for a greater score; that of negative infinity is not 0.
fn ordered(score: f32) -> u32 {
    // Makes -0 the same score as 0.
    let bits = (score + 0.0).to_bits();
    if bits >> 31 == 0 { bits | 0x8000_0000 } else { !bits }
}

fn unordered(ordered: u32) -> f32 {
    f32::from_bits(if ordered >> 31 == 1 { ordered & 0x7fff_ffff } else { !ordered })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn top(k: usize, scores: &[f32]) -> Vec<(u32, f32)> {
        let all = TopK::new(k);
        let mut finds = Finds::new(&all);
        for (&score, position) in scores.iter().zip(0..) {
            finds.push(position, score);
        }
        finds.hand_over();
        all.sorted().iter().map(|hit| (hit.position, hit.score)).collect()
    }

    #[test]
    fn what_one_thread_finds_raises_the_floor_of_others() {
        let all = TopK::new(2);
        let (mut one, mut other) = (Finds::new(&all), Finds::new(&all));
        one.push(0, 1.0);
        one.push(1, -3.0);
        other.look();
        assert_eq!((one.floor(), other.floor()), (f32::NEG_INFINITY, f32::NEG_INFINITY));
        one.hand_over();
        assert_eq!(one.floor(), f32::NEG_INFINITY, "two of two: a third may still be worse than both");
        other.push(2, 0.5);
        other.hand_over();
        assert_eq!((one.floor(), other.floor()), (f32::NEG_INFINITY, 0.5));
        one.look();
        assert_eq!(one.floor(), 0.5);
        one.push(3, 0.25);
        one.push(4, 0.75);
        one.hand_over();
        let hits: Vec<u32> = all.sorted().iter().map(|hit| hit.position).collect();
        assert_eq!(hits, [0, 4]);
    }

    #[test]
    fn order_is_score_descending_then_position_ascending() {
        assert_eq!(top(5, &[0.5, -0.0, 0.5, 2.0, 0.0, -1.0]), [(3, 2.0), (0, 0.5), (2, 0.5), (1, 0.0), (4, 0.0)]);
        assert_eq!(top(9, &[-3.0, -2.0]), [(1, -2.0), (0, -3.0)]);
    }

    #[test]
    fn agrees_with_a_full_sort_when_the_buffer_is_cut_many_times() {
        let scores: Vec<f32> = (0..20_000u32).map(|i| (i.wrapping_mul(2_654_435_761) % 977) as f32 - 500.0).collect();
        for k in [1, 2, 63, 64, 65, 512, 5000, 20_000] {
            let mut all: Vec<(u32, f32)> = scores.iter().enumerate().map(|(i, &s)| (i as u32, s)).collect();
            all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            all.truncate(k);
            assert_eq!(top(k, &scores), all, "k = {k}");
        }
    }

    #[test]
    fn parts_of_many_threads_make_the_same_list() {
        const N: u32 = 40_000;
        let score_of = |i: u32| (i.wrapping_mul(2_654_435_761) % 977) as f32;
        for k in [3, 100, 3000] {
            let all = TopK::new(k);
            std::thread::scope(|scope| {
                for thread in 0..4 {
                    let all = &all;
                    scope.spawn(move || {
                        let mut finds = Finds::new(all);
                        for position in (thread..N).step_by(4) {
                            if position % 64 == thread {
                                finds.look();
                            }
                            finds.push(position, score_of(position));
                        }
                        finds.hand_over();
                    });
                }
            });
            let found: Vec<(u32, f32)> = all.sorted().iter().map(|hit| (hit.position, hit.score)).collect();
            assert_eq!(found, top(k, &(0..N).map(score_of).collect::<Vec<f32>>()));
        }
    }
}
