//! The selection of the best hits of long lists, by many workgroups for each: see `shaders/select/lib/select_long.wgsl`.

use super::hit_lists::HitLists;
use super::kernels::{CountParams, SelectParams, compact_kernel, count_kernel, finish_kernel, gather_kernel};
use crate::backend::gpu::device::Buffer;
use crate::backend::gpu::kernels::Recorder;

/// Digits of the key that are counted by all workgroups.
const COUNTED: usize = 3;

/// Hits that share those digits, as many as there is room for.
const ROOM: usize = 4096;

/// Bytes of `Progress`.
const PROGRESS_BYTES: usize = 20;

/// What the kernels hand on to each other.
#[derive(Debug)]
pub(crate) struct LongSelect {
    /// (B, COUNTED, 256).
    counts: Buffer,
    /// (B) of `Progress`.
    progress: Buffer,
    /// (B, ROOM) hits.
    gathered: Buffer,
    /// The lists that the best hits go to, and that change places with the hit lists.
    spare: Buffer,
}

impl LongSelect {
    /// For lists like those of `lists`.
    pub fn new(recorder: &mut Recorder, lists: &HitLists) -> LongSelect {
        let n_queries = lists.n_queries;
        let made = LongSelect {
            counts: recorder.temporary((n_queries * COUNTED * 256 * 4) as u64),
            progress: recorder.temporary((n_queries * PROGRESS_BYTES) as u64),
            gathered: recorder.temporary((n_queries * ROOM * 8) as u64),
            spare: recorder.temporary(lists.hits.bytes()),
        };
        recorder.clear(&made.counts);
        recorder.clear(&made.progress);
        made
    }

    /// Cuts every list to its best `k` and raises its threshold.
    pub fn select(&mut self, recorder: &mut Recorder, k: usize, lists: &mut HitLists, workgroups: usize) {
        let LongSelect { counts, progress, gathered, spare } = self;
        let HitLists { n_queries, capacity, state, hits } = lists;
        let (k, capacity, n_queries) = (k as u32, *capacity as u32, *n_queries as u32);
        let (all, one) = ([workgroups as u32, n_queries, 1], [n_queries, 1, 1]);
        for digit in 0..COUNTED as u32 {
            recorder.dispatch(&count_kernel(), &CountParams { k, capacity, digit }, &[state, hits, counts], all);
        }
        let params = SelectParams { k, capacity };
        recorder.dispatch(&gather_kernel(), &params, &[state, hits, counts, progress, gathered], all);
        recorder.dispatch(&finish_kernel(), &params, &[state, hits, gathered, counts, progress], one);
        recorder.dispatch(&compact_kernel(), &params, &[hits, progress, spare], all);
        std::mem::swap(hits, spare);
    }
}

/// Workgroups that cut each hit list to its best `k` when `chunk` items have followed `scanned` ones. 1: a single one, in
/// place; where lists are long and so few that this would leave the device idle, more.
///
/// Of items in random order as many pass the filter as belong to the best k so far: all while there are no k, later k for
/// each doubling. (Lists of another order are longer. They take longer, too, but are as right.)
pub fn list_workgroups(n_queries: usize, k: usize, (scanned, chunk): (usize, usize), long_list: usize) -> usize {
    let passed = if scanned <= k { chunk } else { (k as u64 * chunk as u64 / scanned as u64) as usize };
    let hits = k.min(scanned) + passed.min(chunk);
    // An eighth of a long list each, and about 1,000 of them in all.
    let workgroups = (hits / (long_list / 8).max(1)).min(1024 / n_queries.max(1));
    if hits >= long_list && workgroups >= 4 { workgroups } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::list_workgroups;

    #[test]
    fn long_lists_are_cut_by_many_workgroups_if_they_are_few() {
        let workgroups = |n_queries, k, before| list_workgroups(n_queries, k, before, 16_384);
        // Everything passes: 200,000 hits, 2,048 of which are a workgroup's.
        assert_eq!(workgroups(1, 2048, (0, 200_000)), 97);
        assert_eq!(workgroups(32, 2048, (0, 200_000)), 32, "1,024 in all");
        assert_eq!(workgroups(256, 2048, (0, 200_000)), 4);
        assert_eq!(workgroups(257, 2048, (0, 200_000)), 1, "each query has one anyway");
        assert_eq!(workgroups(1, 100, (0, 16_383)), 1, "short");
        assert_eq!(workgroups(1, 100, (0, 16_384)), 8);
        // 100 are kept, and of the next million items another 100 pass.
        assert_eq!(workgroups(1, 100, (1_000_000, 1_000_000)), 1);
        assert_eq!(workgroups(1, 10_000, (1_000_000, 1_000_000)), 9);
        assert_eq!(workgroups(1, 10_000, (4000, 500)), 1, "k is not reached yet: 4,500");
        assert_eq!(workgroups(1, 10_000, (9000, 20_000)), 14, "29,000");
        assert_eq!(workgroups(0, 1, (0, 0)), 1);
        assert_eq!(list_workgroups(2, 3, (0, 64), 8), 64, "any list is long");
        assert_eq!(list_workgroups(1, 1 << 20, (0, 1 << 30), usize::MAX), 1, "no list is long");
    }
}
