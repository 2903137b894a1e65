//! Distributes tiles of an index over threads; every thread keeps a top-k per query, merged at the end.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::tile::TILE;
use super::top_k::TopK;
use crate::backend::{Exclusions, ScoredPosition};

/// What a thread does with the tiles it takes.
pub trait TileScan: Sync {
    /// Scratch memory of one thread.
    type Scratch: Default;

    /// Scores the items of the tiles `tiles` for all queries and offers each score to `found`.
    fn scan(&self, tiles: std::ops::Range<usize>, scratch: &mut Self::Scratch, found: &mut Found);
}

/// The running top-k of every query on one thread.
pub struct Found<'a> {
    top: Vec<TopK>,
    excluded: &'a Exclusions,
    n_items: usize,
}

impl Found<'_> {
    /// Offers the scores of one tile for one query. Lanes beyond the last item are ignored.
    #[inline]
    pub fn offer(&mut self, query: usize, tile: usize, scores: &[f32]) {
        let top = &mut self.top[query];
        let floor = top.floor();
        let first = tile * TILE;
        let scores = &scores[..TILE.min(self.n_items - first)];
        // Most tiles hold nothing good enough: one branch for the whole tile.
        if !scores.iter().fold(false, |any, &score| any | (score >= floor)) {
            return;
        }
        let excluded = self.excluded.of(query);
        for (lane, &score) in scores.iter().enumerate() {
            let position = (first + lane) as u32;
            if score >= floor && excluded.binary_search(&position).is_err() {
                top.push(position, score);
            }
        }
    }
}

/// Runs `scan` over all tiles of `n_items` items on all threads; the best `k` of each query, best first.
pub fn scan_all<T: TileScan>(
    scan: &T,
    n_items: usize,
    n_queries: usize,
    k: usize,
    excluded: &Exclusions,
) -> Vec<Vec<ScoredPosition>> {
    // Large enough to make taking a chunk cheap, small enough to keep all threads busy until the end.
    const CHUNK: usize = 16;
    let n_tiles = n_items.div_ceil(TILE);
    let next = AtomicUsize::new(0);
    let partial = rayon::broadcast(|_| {
        let mut scratch = T::Scratch::default();
        let top = (0..n_queries).map(|_| TopK::new(k)).collect();
        let mut found = Found { top, excluded, n_items };
        loop {
            let first = next.fetch_add(CHUNK, Ordering::Relaxed);
            if first >= n_tiles {
                return found.top;
            }
            scan.scan(first..n_tiles.min(first + CHUNK), &mut scratch, &mut found);
        }
    });
    let mut merged: Vec<TopK> = (0..n_queries).map(|_| TopK::new(k)).collect();
    for (query, top) in partial.into_iter().flat_map(|tops| tops.into_iter().enumerate()) {
        merged[query].merge(top);
    }
    merged.into_iter().map(TopK::into_sorted).collect()
}
