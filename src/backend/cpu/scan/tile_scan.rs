//! Distributes the tiles of an index over threads, which share the list of each query.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::backend::cpu::dot::micro_kernel::TILE;
use crate::backend::cpu::top_k::local::LocalTopK;
use crate::backend::cpu::top_k::local_hits::{LocalHits, QueryHits};
use crate::backend::cpu::top_k::shared::SharedTopK;
use crate::backend::{Exclusions, Hits, SearchContext};
use crate::threads;

/// A scan, as one thread does it.
pub trait TileScan: Sync {
    /// Scratch memory of one thread.
    type Scratch: Default;

    /// Most tiles that a thread takes at a time, to make taking them cheap.
    const CHUNK: usize = 16;

    /// Scores the items of the tiles `tiles` for all queries and adds the scores to `found`.
    fn scan(&self, tiles: Range<usize>, scratch: &mut Self::Scratch, found: &mut LocalHits);

    /// Called in the end, for scores that were held back.
    fn finish(&self, _: &mut Self::Scratch, _: &mut LocalHits) {}
}

/// Hits, of all queries together, that are worth a thread of their own to sort.
const MIN_SORT: usize = 1000;

/// Runs `scan` over `n_tiles` tiles on the threads that are idle, each with lists from `lists`; over fewer, if the search is cancelled.
fn run<'a, T: TileScan>(
    context: &SearchContext,
    scan: &T,
    n_tiles: usize,
    n_items: usize,
    excluded: &'a Exclusions,
    lists: impl Fn() -> Vec<QueryHits<'a>> + Sync,
) -> Vec<LocalHits<'a>> {
    let next = AtomicUsize::new(0);
    // Not more than keep all threads busy until the end.
    let chunk = (n_tiles / (32 * threads::count())).clamp(1, T::CHUNK);
    threads::share(n_tiles.div_ceil(chunk), |go_on| {
        let mut scratch = T::Scratch::default();
        let mut found = LocalHits::new(lists(), excluded, n_items);
        while go_on() && !context.is_cancelled() {
            let first = next.fetch_add(chunk, Ordering::Relaxed);
            if first >= n_tiles {
                break;
            }
            found.refresh();
            scan.scan(first..n_tiles.min(first + chunk), &mut scratch, &mut found);
        }
        scan.finish(&mut scratch, &mut found);
        found.merge();
        found
    })
}

/// The best `k` of each of `n_queries` queries, best first, of the items that `scan` scores in `n_tiles` tiles; and the
/// number of pairs left out.
pub fn best<T: TileScan>(
    context: &SearchContext,
    scan: &T,
    (n_tiles, n_items): (usize, usize),
    n_queries: usize,
    k: usize,
    excluded: &Exclusions,
) -> (Hits, u64) {
    let all: Vec<SharedTopK> = (0..n_queries).map(|_| SharedTopK::new(k)).collect();
    let lists = || all.iter().map(|top_k| QueryHits::Best(LocalTopK::new(top_k))).collect();
    let pruned = run(context, scan, n_tiles, n_items, excluded, lists).iter().map(|found| found.pruned).sum();
    // Sorting a long list takes longer than asking another thread to.
    let piece = (MIN_SORT / k).max(1);
    (threads::map(&all, piece, |(): &mut (), top_k: &SharedTopK| top_k.sorted()), pruned)
}

/// All positions, ascending, whose score is at least the query's threshold.
pub fn above<T: TileScan>(
    context: &SearchContext,
    scan: &T,
    n_items: usize,
    thresholds: &[f32],
    excluded: &Exclusions,
) -> Vec<Vec<u32>> {
    let lists = || thresholds.iter().map(|&threshold| QueryHits::Above { threshold, positions: Vec::new() }).collect();
    let mut merged = vec![Vec::new(); thresholds.len()];
    for found in run(context, scan, n_items.div_ceil(TILE), n_items, excluded, lists) {
        for (merged, list) in merged.iter_mut().zip(found.into_lists()) {
            if let QueryHits::Above { positions, .. } = list {
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
    use crate::context::Cancel;

    /// Counts tiles, and cancels the search at the first of them.
    struct Counting {
        seen: AtomicUsize,
        cancel: Cancel,
    }

    impl TileScan for Counting {
        type Scratch = ();

        fn scan(&self, tiles: Range<usize>, (): &mut (), found: &mut LocalHits) {
            self.seen.fetch_add(tiles.len(), Ordering::Relaxed);
            self.cancel.cancel();
            for tile in tiles {
                found.add_scores(0, &[0.5; TILE], |lane| (tile * TILE + lane) as u32);
            }
        }
    }

    #[test]
    fn a_cancelled_scan_ends_with_the_chunk_that_each_thread_has() {
        const TILES: usize = 100_000;
        let scan = |context: SearchContext, cancel: Cancel| {
            let scan = Counting { seen: AtomicUsize::new(0), cancel };
            best(&context, &scan, (TILES, TILES * TILE), 1, 3, &Exclusions::default());
            scan.seen.into_inner()
        };
        let cancel = Cancel::new();
        let seen = scan(SearchContext::new(Some(cancel.clone()), false), cancel);
        let most = threads::count() * Counting::CHUNK;
        assert!((1..=most).contains(&seen), "{seen} of {TILES} tiles, expected {most} at most");
        assert_eq!(scan(SearchContext::default(), Cancel::new()), TILES, "without anybody to cancel it, all are seen");
    }
}
