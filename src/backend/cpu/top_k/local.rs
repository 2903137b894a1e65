//! The part of one thread in a running top-k.

use super::key::{key_of, score_of};
use super::shared::SharedTopK;

/// Fewest hits that a thread collects before it merges them: selecting the best k more often costs more than a higher threshold saves.
const MIN_MERGE: usize = 64;

/// What one thread has found since it last merged it into the shared list.
pub struct LocalTopK<'a> {
    shared: &'a SharedTopK,
    keys: Vec<u64>,
    threshold: u64,
}

impl<'a> LocalTopK<'a> {
    /// Empty.
    pub fn new(shared: &'a SharedTopK) -> LocalTopK<'a> {
        LocalTopK { shared, keys: Vec::new(), threshold: 0 }
    }

    /// A score below this cannot be among the best k.
    #[inline]
    pub fn threshold(&self) -> f32 {
        if self.threshold == 0 { f32::NEG_INFINITY } else { score_of(self.threshold) }
    }

    /// Takes over the threshold that other threads have raised.
    #[inline]
    pub fn refresh(&mut self) {
        self.threshold = self.shared.threshold();
    }

    /// Adds a hit, and returns whether the threshold may have risen.
    #[inline]
    pub fn push(&mut self, position: u32, score: f32) -> bool {
        let key = key_of(position, score);
        if key > self.threshold {
            self.keys.push(key);
            if self.keys.len() >= MIN_MERGE.max(self.shared.k() / 2) {
                self.merge();
                return true;
            }
        }
        false
    }

    /// Moves all hits to the shared list.
    pub fn merge(&mut self) {
        self.threshold = self.shared.merge(&mut self.keys);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn top(k: usize, scores: &[f32]) -> Vec<(u32, f32)> {
        let shared = SharedTopK::new(k);
        let mut local = LocalTopK::new(&shared);
        for (&score, position) in scores.iter().zip(0..) {
            local.push(position, score);
        }
        local.merge();
        shared.sorted().iter().map(|hit| (hit.position, hit.score)).collect()
    }

    #[test]
    fn merged_hits_raise_the_threshold_of_other_threads() {
        let shared = SharedTopK::new(2);
        let (mut one, mut other) = (LocalTopK::new(&shared), LocalTopK::new(&shared));
        one.push(0, 1.0);
        one.push(1, -3.0);
        other.refresh();
        assert_eq!((one.threshold(), other.threshold()), (f32::NEG_INFINITY, f32::NEG_INFINITY));
        one.merge();
        assert_eq!(one.threshold(), f32::NEG_INFINITY, "two of two: a third may still be worse than both");
        other.push(2, 0.5);
        other.merge();
        assert_eq!((one.threshold(), other.threshold()), (f32::NEG_INFINITY, 0.5));
        one.refresh();
        assert_eq!(one.threshold(), 0.5);
        one.push(3, 0.25);
        one.push(4, 0.75);
        one.merge();
        let hits: Vec<u32> = shared.sorted().iter().map(|hit| hit.position).collect();
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
    fn many_threads_make_the_same_list() {
        const N: u32 = 40_000;
        let score_of = |i: u32| (i.wrapping_mul(2_654_435_761) % 977) as f32;
        for k in [3, 100, 3000] {
            let shared = SharedTopK::new(k);
            std::thread::scope(|scope| {
                for thread in 0..4 {
                    let shared = &shared;
                    scope.spawn(move || {
                        let mut local = LocalTopK::new(shared);
                        for position in (thread..N).step_by(4) {
                            if position % 64 == thread {
                                local.refresh();
                            }
                            local.push(position, score_of(position));
                        }
                        local.merge();
                    });
                }
            });
            let found: Vec<(u32, f32)> = shared.sorted().iter().map(|hit| (hit.position, hit.score)).collect();
            assert_eq!(found, top(k, &(0..N).map(score_of).collect::<Vec<f32>>()));
        }
    }
}
