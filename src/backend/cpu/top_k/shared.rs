//! The running top-k of one query, shared by all threads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::key::{position_of, score_of};
use crate::backend::ScoredPosition;

/// The best k of all items, by score descending, then position ascending. That is a total order, so the result depends neither on the
/// order in which items are found nor on the threads that find them.
pub struct SharedTopK {
    k: usize,
    keys: Mutex<Vec<u64>>,
    /// The k-th best key, or 0 while there are fewer: only greater keys can enter.
    threshold: AtomicU64,
}

impl SharedTopK {
    /// For 1 <= `k`.
    pub fn new(k: usize) -> SharedTopK {
        SharedTopK { k, keys: Mutex::default(), threshold: AtomicU64::new(0) }
    }

    /// The best k, best first, or all if there are fewer.
    pub fn sorted(&self) -> Vec<ScoredPosition> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.sort_unstable_by(|a, b| b.cmp(a));
        let hit = |key: u64| ScoredPosition { position: position_of(key), score: score_of(key) };
        keys.iter().copied().map(hit).collect()
    }

    /// Keeps the best k of its keys and `more`, which is emptied, and returns the new threshold.
    pub(super) fn merge(&self, more: &mut Vec<u64>) -> u64 {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.append(more);
        if keys.len() > self.k {
            let (_, kth, _) = keys.select_nth_unstable_by(self.k - 1, |a, b| b.cmp(a));
            self.threshold.store(*kth, Ordering::Relaxed);
            keys.truncate(self.k);
        }
        self.threshold()
    }

    /// The number of items wanted.
    pub(super) fn k(&self) -> usize {
        self.k
    }

    /// Only keys above this can enter.
    #[inline]
    pub(super) fn threshold(&self) -> u64 {
        self.threshold.load(Ordering::Relaxed)
    }
}
