//! Scans whose threshold comes from a sample of the items: one pass over all items, one selection of the best k, however many items
//! there are. (The idea is that of the h-indexer, arXiv 2306.04039, section 3.3.)
//!
//! The threshold is a score of the sample of such a rank that the scan of all items passes k of them and more, very probably, and not
//! many more. Where it passes fewer, or more than there is room for, this is known afterwards, and the scan is repeated by
//! chunks. So results are exact always.

use std::ops::Range;

use super::plan::{Chunk, ScanLimits, ScanShape, TILE, submissions};
use crate::backend::gpu::select::HIT_BYTES;

/// Items for each one of the sample.
const SHARE: usize = 80;

/// Items of a sample.
const SIZE: Range<usize> = 1024..65_536;

/// Standard deviations that the number of items that pass may be too small by.
const DEVIATIONS: f64 = 5.0;

/// Room for so many times the hits that are expected: items that lie together in an index are alike, and the sample is of tiles.
const ROOM: usize = 4;

/// How a batch is scanned with a threshold from a sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SampledPlan {
    /// Queries that are scanned together.
    pub slice: usize,
    /// The sample: some tiles of each shard.
    pub sample: Vec<Chunk>,
    /// Items of the sample.
    pub sampled: usize,
    /// Rank of the threshold among the scores of the sample.
    pub rank: usize,
    /// Hits that pass the threshold, probably.
    pub expected: usize,
    /// Hits that a hit list has room for.
    pub capacity: usize,
    /// Chunks of each submission, in ascending position.
    pub submissions: Vec<Vec<Chunk>>,
}

impl SampledPlan {
    /// Plans a scan of all `shards`; `None` where there are too few items for a sample, or k is a large part of them.
    pub fn new(shape: &ScanShape, shards: &[Range<usize>], limits: &ScanLimits) -> Option<SampledPlan> {
        let n_items: usize = shards.iter().map(Range::len).sum();
        if n_items < limits.sampled_items.max(1) || shape.n_queries == 0 || shape.k == 0 {
            return None;
        }
        let sample = sample(shards, (n_items / SHARE).clamp(SIZE.start, SIZE.end).min(n_items));
        let sampled: usize = sample.iter().map(|chunk| chunk.n_tiles * TILE).sum();
        // Of so many sampled items that pass, r, about r N / S pass in all, with a standard deviation of sqrt(r) N / S: this must
        // leave k at DEVIATIONS below.
        let share = shape.k as f64 * sampled as f64 / n_items as f64;
        let root = (DEVIATIONS + (DEVIATIONS * DEVIATIONS + 4.0 * share).sqrt()) / 2.0;
        let rank = (root * root).ceil() as usize;
        if rank > sampled / 2 {
            return None;
        }
        let expected = (rank * n_items).div_ceil(sampled);
        let capacity = (ROOM * expected).min(n_items).max(sampled);
        let list = capacity as u64 * HIT_BYTES;
        let budget = limits.hit_list_bytes.min(limits.binding_bytes);
        let most = (budget / list).min(limits.binding_bytes / shape.four_query_bytes * 4) as usize;
        let most = most.min(limits.workgroups);
        if most == 0 || sample.iter().any(|chunk| chunk.n_tiles > limits.workgroups) {
            return None;
        }
        let slice = shape.n_queries.div_ceil(shape.n_queries.div_ceil(most));
        let item_flops = slice as u64 * shape.pair_flops;
        let longest = (limits.dispatch_flops / item_flops.max(1)) as usize / TILE;
        let longest = longest.clamp(1, limits.workgroups.max(1));
        if sampled / TILE > longest {
            return None;
        }
        let submissions = submissions(shards, item_flops, limits, |_| longest);
        Some(SampledPlan { slice, sample, sampled, rank, expected, capacity, submissions })
    }
}

/// About `size` items, tiles that are spread over all shards.
fn sample(shards: &[Range<usize>], size: usize) -> Vec<Chunk> {
    let n_tiles = |shard: &Range<usize>| shard.len().div_ceil(TILE);
    let all: usize = shards.iter().map(n_tiles).sum();
    let stride = (all / size.div_ceil(TILE).max(1)).max(1);
    let chunk = |(shard, range): (usize, &Range<usize>)| {
        let tiles = n_tiles(range);
        let first_tile = (stride / 2).min(tiles.saturating_sub(1));
        Chunk { shard, first_tile, stride, n_tiles: (tiles - first_tile).div_ceil(stride) }
    };
    shards.iter().enumerate().filter(|(_, range)| !range.is_empty()).map(chunk).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::single_range_in_vec_init, reason = "tests; an index may be one shard")]
mod tests {
    use super::*;

    const SHAPE: ScanShape = ScanShape { n_queries: 32, k: 100, four_query_bytes: 8192, pair_flops: 128 };

    fn plan(k: usize, shards: &[Range<usize>]) -> Option<SampledPlan> {
        SampledPlan::new(&ScanShape { k, ..SHAPE }, shards, &ScanLimits::default())
    }

    #[test]
    fn lists_hardly_grow_with_the_number_of_items() {
        let million = plan(2048, &[0..1_000_000]).unwrap();
        assert_eq!((million.submissions.concat().len(), million.sample.len(), million.slice), (1, 1, 32));
        assert!((12_000..13_000).contains(&million.sampled), "{}", million.sampled);
        assert!((2048..6000).contains(&million.expected), "{}", million.expected);
        assert!(plan(100, &[0..1_000_000]).unwrap().expected < 3000);
        assert!(plan(2048, &[0..10_000_000]).unwrap().expected < 2 * million.expected);
        assert!(plan(1, &[0..1_000_000]).unwrap().expected < 3000);
    }

    #[test]
    fn small_indexes_and_large_k_go_by_chunks() {
        assert!(plan(100, &[0..65_535]).is_none());
        assert!(plan(100, &[0..65_536]).is_some());
        assert!(plan(600_000, &[0..1_000_000]).is_none());
        assert!(plan(100, &[]).is_none());
    }

    #[test]
    fn a_sample_is_of_all_shards_and_every_item_is_scanned_once() {
        let shards = [0..640_000, 640_000..1_000_001];
        let plan = plan(50, &shards).unwrap();
        let sizes: Vec<usize> = plan.sample.iter().map(|chunk| chunk.n_tiles * TILE).collect();
        assert!(sizes.len() == 2 && sizes[0] > sizes[1] && sizes[1] > 4000, "{sizes:?}");
        for (chunk, range) in plan.sample.iter().zip(&shards) {
            assert!((chunk.first_tile + (chunk.n_tiles - 1) * chunk.stride) * TILE < range.len());
        }
        let tiles: usize = plan.submissions.concat().iter().map(|chunk| chunk.n_tiles).sum();
        assert_eq!(tiles, 10_000 + 360_001usize.div_ceil(TILE));
        assert!(plan.capacity >= plan.sampled && plan.capacity <= ROOM * plan.expected.max(plan.sampled));
    }
}
