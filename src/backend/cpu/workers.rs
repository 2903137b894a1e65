//! Distributes tiles of an index over threads, which share lists of what they find.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::backend::cpu::dot::micro_kernel::TILE;
use crate::backend::cpu::top_k::filter::{Passed, at_least};
use crate::backend::cpu::top_k::shared::{Finds, TopK};
use crate::backend::{Exclusions, Hits};
use crate::job::Job;
use crate::threads;

/// What a thread does with the tiles it takes.
pub trait TileScan: Sync {
    /// Scratch memory of one thread.
    type Scratch: Default;

    /// Most tiles that a thread takes at a time: enough to make taking them cheap.
    const CHUNK: usize = 16;

    /// Scores the items of the tiles `tiles` for all queries and offers each score to `found`.
    fn scan(&self, tiles: Range<usize>, scratch: &mut Self::Scratch, found: &mut Found);

    /// Offers what is still held back.
    fn finish(&self, _: &mut Self::Scratch, _: &mut Found) {}
}

/// What is kept for one query.
enum Keep<'a> {
    Best(Finds<'a>),
    Above(f32, Vec<u32>),
}

/// What one thread has found for every query.
pub struct Found<'a> {
    lists: Vec<Keep<'a>>,
    /// (B): a score below this is of no use any more.
    floors: Vec<f32>,
    excluded: &'a Exclusions,
    n_items: usize,
    /// Pairs left out.
    pub pruned: u64,
}

impl Found<'_> {
    /// (B): scores below these are of no use any more.
    pub fn floors(&self) -> &[f32] {
        &self.floors
    }

    /// A score below this is of no use to `query` any more.
    #[inline]
    pub fn floor(&self, query: usize) -> f32 {
        self.floors[query]
    }

    /// Items in `tile`.
    pub fn items_of(&self, tile: usize) -> usize {
        TILE.min(self.n_items - tile * TILE)
    }

    /// Takes note of what other threads have found.
    fn look(&mut self) {
        for (floor, list) in self.floors.iter_mut().zip(&mut self.lists) {
            if let Keep::Best(finds) = list {
                finds.look();
                *floor = finds.floor();
            }
        }
    }

    /// Adds what is not there yet to the lists of all threads.
    fn hand_over(&mut self) {
        for list in &mut self.lists {
            if let Keep::Best(finds) = list {
                finds.hand_over();
            }
        }
    }

    /// Offers what has passed of one tile. Lanes beyond the last item are ignored.
    pub fn offer_passed(&mut self, tile: usize, passed: &mut Passed) {
        let n = self.items_of(tile);
        passed.drain(|query, scores, passed| {
            self.offer(query, &scores[..n], passed, |lane| (tile * TILE + lane) as u32);
        });
    }

    /// Offers the scores of some items, at most [`TILE`], for one query.
    #[inline]
    pub fn offer_lanes(&mut self, query: usize, scores: &[f32], position_of: impl Fn(usize) -> u32) {
        self.offer(query, scores, at_least(scores, self.floors[query]), position_of);
    }

    /// Offers the scores that passed, in bits.
    #[inline]
    fn offer(&mut self, query: usize, scores: &[f32], mut passed: u32, position_of: impl Fn(usize) -> u32) {
        while passed != 0 {
            let lane = passed.trailing_zeros() as usize;
            passed &= passed - 1;
            let Some(&score) = scores.get(lane) else { break };
            let position = position_of(lane);
            if self.excluded.excludes(query, position) {
                continue;
            }
            match &mut self.lists[query] {
                Keep::Best(top) => {
                    if top.push(position, score) {
                        self.floors[query] = top.floor();
                    }
                }
                Keep::Above(_, positions) => positions.push(position),
            }
        }
    }
}

/// Hits, of all queries together, that are worth a thread of their own to sort.
const LONG: usize = 1000;

/// Runs `scan` over `n_tiles` tiles on the threads that are idle, each with lists from `lists`; over fewer, if the search is cancelled.
fn run<'a, T: TileScan>(
    scan: &T,
    n_tiles: usize,
    n_items: usize,
    excluded: &'a Exclusions,
    lists: impl Fn() -> Vec<Keep<'a>> + Sync,
) -> Vec<Found<'a>> {
    let (next, job) = (AtomicUsize::new(0), Job::current());
    // Few enough to keep all threads busy until the end.
    let chunk = (n_tiles / (32 * threads::count())).clamp(1, T::CHUNK);
    threads::share(n_tiles.div_ceil(chunk), |go_on| {
        let mut scratch = T::Scratch::default();
        let lists = lists();
        let floor = |keep: &Keep| match keep {
            Keep::Best(finds) => finds.floor(),
            Keep::Above(threshold, _) => *threshold,
        };
        let floors = lists.iter().map(floor).collect();
        let mut found = Found { lists, floors, excluded, n_items, pruned: 0 };
        while go_on() && !job.is_cancelled() {
            let first = next.fetch_add(chunk, Ordering::Relaxed);
            if first >= n_tiles {
                break;
            }
            found.look();
            scan.scan(first..n_tiles.min(first + chunk), &mut scratch, &mut found);
        }
        scan.finish(&mut scratch, &mut found);
        found.hand_over();
        found
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
    let all: Vec<TopK> = (0..n_queries).map(|_| TopK::new(k)).collect();
    let lists = || all.iter().map(|all| Keep::Best(Finds::new(all))).collect();
    let pruned = run(scan, n_tiles, n_items, excluded, lists).iter().map(|found| found.pruned).sum();
    // Sorting a long list takes longer than asking another thread to.
    let piece = (LONG / k).max(1);
    (threads::map(&all, piece, |(): &mut (), top: &TopK| top.sorted()), pruned)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Cancel;

    /// Counts tiles, and cancels the search at the first of them.
    struct Counting {
        seen: AtomicUsize,
        cancel: Cancel,
    }

    impl TileScan for Counting {
        type Scratch = ();

        fn scan(&self, tiles: Range<usize>, (): &mut (), found: &mut Found) {
            self.seen.fetch_add(tiles.len(), Ordering::Relaxed);
            self.cancel.cancel();
            for tile in tiles {
                found.offer_lanes(0, &[0.5; TILE], |lane| (tile * TILE + lane) as u32);
            }
        }
    }

    #[test]
    fn a_cancelled_scan_ends_with_the_chunk_that_each_thread_has() {
        const TILES: usize = 100_000;
        let scan = |job: Job, cancel: Cancel| {
            let scan = Counting { seen: AtomicUsize::new(0), cancel };
            job.run(|| best(&scan, (TILES, TILES * TILE), 1, 3, &Exclusions::default()));
            scan.seen.into_inner()
        };
        let cancel = Cancel::new();
        let seen = scan(Job::new(Some(cancel.clone()), false), cancel);
        let most = threads::count() * Counting::CHUNK;
        assert!((1..=most).contains(&seen), "{seen} of {TILES} tiles, expected {most} at most");
        assert_eq!(scan(Job::default(), Cancel::new()), TILES, "without anybody to cancel it, all are seen");
    }
}
