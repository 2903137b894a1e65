//! Distributes tiles of an index over threads; every thread keeps lists of its own, merged at the end.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::tile::TILE;
use super::top_k::TopK;
use crate::backend::{Exclusions, Hits};

/// What a thread does with the tiles it takes.
pub trait TileScan: Sync {
    /// Scratch memory of one thread.
    type Scratch: Default;

    /// Tiles that a thread takes at a time: large enough to make taking them cheap, small enough to keep all threads
    /// busy until the end.
    const CHUNK: usize = 16;

    /// Scores the items of the tiles `tiles` for all queries and offers each score to `found`.
    fn scan(&self, tiles: Range<usize>, scratch: &mut Self::Scratch, found: &mut Found);

    /// Offers what is still held back.
    fn finish(&self, _: &mut Self::Scratch, _: &mut Found) {}
}

/// What is kept for one query.
enum Keep {
    Best(TopK),
    Above(f32, Vec<u32>),
}

/// What one thread has found for every query.
pub struct Found<'a> {
    lists: Vec<Keep>,
    excluded: &'a Exclusions,
    n_items: usize,
    /// Pairs left out.
    pub pruned: u64,
}

impl Found<'_> {
    /// A score below this is of no use to `query` any more.
    #[inline]
    pub fn floor(&self, query: usize) -> f32 {
        match &self.lists[query] {
            Keep::Best(top) => top.floor(),
            Keep::Above(threshold, _) => *threshold,
        }
    }

    /// Items in `tile`.
    pub fn items_of(&self, tile: usize) -> usize {
        TILE.min(self.n_items - tile * TILE)
    }

    /// Offers the scores of one tile for one query. Lanes beyond the last item are ignored.
    #[inline]
    pub fn offer(&mut self, query: usize, tile: usize, scores: &[f32]) {
        let first = tile * TILE;
        self.offer_lanes(query, &scores[..self.items_of(tile)], |lane| (first + lane) as u32);
    }

    /// Offers the scores of the items at the positions of some lanes.
    #[inline]
    pub fn offer_lanes(&mut self, query: usize, scores: &[f32], position_of: impl Fn(usize) -> u32) {
        let floor = self.floor(query);
        // Most tiles hold nothing good enough: one branch for the whole tile.
        if !scores.iter().fold(false, |any, &score| any | (score >= floor)) {
            return;
        }
        for (lane, &score) in scores.iter().enumerate() {
            let position = position_of(lane);
            if score >= floor && !self.excluded.excludes(query, position) {
                match &mut self.lists[query] {
                    Keep::Best(top) => top.push(position, score),
                    Keep::Above(_, positions) => positions.push(position),
                }
            }
        }
    }
}

/// Runs `scan` over `n_tiles` tiles on all threads, each with lists from `lists`.
fn run<'a, T: TileScan>(
    scan: &T,
    n_tiles: usize,
    n_items: usize,
    excluded: &'a Exclusions,
    lists: impl Fn() -> Vec<Keep> + Sync,
) -> Vec<Found<'a>> {
    let next = AtomicUsize::new(0);
    rayon::broadcast(|_| {
        let mut scratch = T::Scratch::default();
        let mut found = Found { lists: lists(), excluded, n_items, pruned: 0 };
        loop {
            let first = next.fetch_add(T::CHUNK, Ordering::Relaxed);
            if first >= n_tiles {
                scan.finish(&mut scratch, &mut found);
                return found;
            }
            scan.scan(first..n_tiles.min(first + T::CHUNK), &mut scratch, &mut found);
        }
    })
}

/// The best `k` of each of `n_queries` queries, best first, of the items that `scan` scores in `n_tiles` tiles; and the
/// number of pairs left out.
pub fn best<T: TileScan>(
    scan: &T,
    (n_tiles, n_items): (usize, usize),
    n_queries: usize,
    k: usize,
    excluded: &Exclusions,
) -> (Hits, u64) {
    let lists = || (0..n_queries).map(|_| Keep::Best(TopK::new(k))).collect();
    let mut merged: Vec<TopK> = (0..n_queries).map(|_| TopK::new(k)).collect();
    let mut pruned = 0;
    for found in run(scan, n_tiles, n_items, excluded, lists) {
        pruned += found.pruned;
        for (merged, list) in merged.iter_mut().zip(found.lists) {
            if let Keep::Best(top) = list {
                merged.merge(top);
            }
        }
    }
    (merged.into_iter().map(TopK::into_sorted).collect(), pruned)
}

/// All positions, ascending, whose score is at least the query's threshold.
pub fn above<T: TileScan>(scan: &T, n_items: usize, thresholds: &[f32], excluded: &Exclusions) -> Vec<Vec<u32>> {
    let lists = || thresholds.iter().map(|&threshold| Keep::Above(threshold, Vec::new())).collect();
    let mut merged = vec![Vec::new(); thresholds.len()];
    for found in run(scan, n_items.div_ceil(TILE), n_items, excluded, lists) {
        for (merged, list) in merged.iter_mut().zip(found.lists) {
            if let Keep::Above(_, positions) = list {
                merged.extend(positions);
            }
        }
    }
    merged.iter_mut().for_each(|list| list.sort_unstable());
    merged
}
