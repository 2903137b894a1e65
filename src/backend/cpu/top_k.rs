//! Running top-k of one query: a buffer of twice the size that is cut back when full.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::backend::ScoredPosition;

/// Hits that are kept at least: cutting shorter lists would take longer than what a tighter threshold saves.
const LEAST: usize = 64;

/// Keeps the best k of all pairs pushed, by score descending, then position ascending: a total order, so the result
/// does not depend on the order of pushes.
pub struct TopK {
    k: usize,
    keys: Vec<u64>,
    threshold: u64,
}

impl TopK {
    /// For 1 <= `k`.
    pub fn new(k: usize) -> TopK {
        TopK { k, keys: Vec::new(), threshold: 0 }
    }

    /// A score below this cannot enter any more.
    #[inline]
    pub fn floor(&self) -> f32 {
        if self.threshold == 0 { f32::NEG_INFINITY } else { score_of(self.threshold) }
    }

    /// Offers one pair, and says whether the floor may have risen.
    #[inline]
    pub fn push(&mut self, position: u32, score: f32) -> bool {
        let key = key_of(position, score);
        if key > self.threshold {
            self.keys.push(key);
            if self.keys.len() >= 2 * self.k.max(LEAST) {
                self.cut();
                return true;
            }
        }
        false
    }

    /// Takes over everything that `other` has kept.
    pub fn merge(&mut self, other: TopK) {
        self.keys.extend(other.keys);
    }

    /// The best k (or all, if fewer were pushed), best first.
    pub fn into_sorted(mut self) -> Vec<ScoredPosition> {
        self.cut();
        self.keys.sort_unstable_by(|a, b| b.cmp(a));
        let hit = |key: u64| ScoredPosition { position: !(key as u32), score: score_of(key) };
        self.keys.into_iter().map(hit).collect()
    }

    fn cut(&mut self) {
        if self.keys.len() > self.k {
            let (_, kth, _) = self.keys.select_nth_unstable_by(self.k - 1, |a, b| b.cmp(a));
            self.threshold = *kth;
            self.keys.truncate(self.k);
        }
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

/// For each query a score that all lists of it together need not look below: each list's floor is one for all.
pub struct SharedFloors(Vec<AtomicU32>);

impl SharedFloors {
    /// For `n_queries` queries of which nothing is known.
    pub fn new(n_queries: usize) -> SharedFloors {
        SharedFloors((0..n_queries).map(|_| AtomicU32::new(ordered(f32::NEG_INFINITY))).collect())
    }

    /// Makes known that nothing below `floor` is of use.
    pub fn raise(&self, query: usize, floor: f32) {
        self.0[query].fetch_max(ordered(floor), Ordering::Relaxed);
    }

    /// What is known at this moment, if it is above `floors`.
    pub fn raise_others(&self, floors: &mut [f32]) {
        for (floor, shared) in floors.iter_mut().zip(&self.0) {
            *floor = floor.max(unordered(shared.load(Ordering::Relaxed)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn top(k: usize, scores: &[f32]) -> Vec<(u32, f32)> {
        let mut top = TopK::new(k);
        for (&score, position) in scores.iter().zip(0..) {
            top.push(position, score);
        }
        top.into_sorted().iter().map(|hit| (hit.position, hit.score)).collect()
    }

    #[test]
    fn shared_floors_only_rise() {
        let shared = SharedFloors::new(3);
        shared.raise(1, -2.0);
        shared.raise(1, -3.0);
        shared.raise(2, 0.5);
        let mut floors = [f32::NEG_INFINITY, f32::NEG_INFINITY, 0.75];
        shared.raise_others(&mut floors);
        assert_eq!(floors, [f32::NEG_INFINITY, -2.0, 0.75]);
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
    fn merging_parts_equals_pushing_everything() {
        let (mut left, mut right) = (TopK::new(3), TopK::new(3));
        for ((position, score), (other, other_score)) in
            [(0, 1.0), (1, 5.0), (2, 1.0)].into_iter().zip([(3, 5.0), (4, 0.0), (5, 9.0)])
        {
            left.push(position, score);
            right.push(other, other_score);
        }
        left.merge(right);
        let hits: Vec<u32> = left.into_sorted().iter().map(|hit| hit.position).collect();
        assert_eq!(hits, [5, 1, 3]);
    }
}
