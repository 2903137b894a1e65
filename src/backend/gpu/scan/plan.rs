//! Sizes of a scan, computed before anything is dispatched: shards of the index, slices of the batch, chunks of items
//! and submissions of chunks. Pure arithmetic on counts and limits.

use std::ops::Range;

use crate::backend::gpu::device::Gpu;
use crate::backend::gpu::select::HIT_BYTES;
use crate::{Error, Result};

/// Items side by side in the interleaved tables, and threads of a workgroup of the scan.
pub const TILE: usize = 64;

/// What a plan has to stay below. [`ScanLimits::default`] suits every device once its own limits are filled in; tests set
/// tiny ones to cross every border.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanLimits {
    /// Bytes that one binding may cover.
    pub binding_bytes: u64,
    /// Workgroups along one axis of a grid.
    pub workgroups: usize,
    /// Bytes of the hit lists of one slice of the batch; exceeded only if the list of a single query is longer.
    pub hit_list_bytes: u64,
    /// Items of the first chunk. Later chunks are as long as everything before them: as the k-th score rises, each then
    /// yields about as many hits, and the first one, which passes whole, is short.
    pub first_chunk: usize,
    /// Items from which on a scan takes its threshold from a sample, and cuts its hit lists once.
    pub sampled_items: usize,
    /// Hits from which on a hit list is cut by several workgroups, if there are few lists: one workgroup takes about 5 ns
    /// for each hit, several take some more dispatches.
    pub long_list: usize,
    /// Floating-point operations of one dispatch.
    pub dispatch_flops: u64,
    /// Floating-point operations of one submission. Operating systems reset a GPU that does not answer for 2 to 10 s; a
    /// slow integrated GPU (200 GFLOP/s) takes 1 s for this.
    pub submission_flops: u64,
    /// Logits of a pair that a thread holds at most; more are divided among threads where the device has subgroups. `None`: 64, on
    /// a software driver, which compiles such kernels for minutes, any number.
    pub thread_logits: Option<usize>,
}

impl Default for ScanLimits {
    fn default() -> ScanLimits {
        ScanLimits {
            // Metal can miscompute on bindings of 4 GiB, Vulkan and DX12 end at 2 GiB; 1 GiB is safe everywhere.
            binding_bytes: 1 << 30,
            workgroups: 65_535,
            hit_list_bytes: 64 << 20,
            first_chunk: 4096,
            sampled_items: 65_536,
            long_list: 16_384,
            dispatch_flops: 50_000_000_000,
            submission_flops: 200_000_000_000,
            thread_logits: None,
        }
    }
}

impl ScanLimits {
    /// These limits, lowered to those of a device.
    pub fn on(self, gpu: &Gpu) -> ScanLimits {
        let device = gpu.limits();
        ScanLimits {
            binding_bytes: self.binding_bytes.min(device.max_storage_buffer_binding_size).min(device.max_buffer_size),
            workgroups: self.workgroups.min(device.max_compute_workgroups_per_dimension as usize),
            ..self
        }
    }
}

/// Positions of each shard of an index of `n_items`, whose largest table takes `tile_bytes` per tile. All shards but the
/// last are whole tiles.
///
/// # Errors
/// If a single tile exceeds the limit.
pub fn shards(n_items: usize, tile_bytes: u64, limits: &ScanLimits) -> Result<Vec<Range<usize>>> {
    let shard_items = (limits.binding_bytes / tile_bytes) as usize * TILE;
    if shard_items == 0 {
        return Err(Error::Limit { what: "bytes of a tile of 64 items", need: tile_bytes, have: limits.binding_bytes });
    }
    Ok((0..n_items).step_by(shard_items).map(|from| from..n_items.min(from + shard_items)).collect())
}

/// Items that are scanned by one dispatch; within one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The shard.
    pub shard: usize,
    /// First tile, counted from the start of the shard.
    pub first_tile: usize,
    /// Tiles from one to the next.
    pub stride: usize,
    /// Number of tiles.
    pub n_tiles: usize,
}

/// What is to be scanned.
#[derive(Clone, Copy, Debug)]
pub struct ScanShape {
    /// B.
    pub n_queries: usize,
    /// K.
    pub k: usize,
    /// Bytes of four queries in the packed query table, which is padded to whole threads of up to four.
    pub four_query_bytes: u64,
    /// Floating-point operations of one (query, item) pair.
    pub pair_flops: u64,
}

/// How a batch is scanned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanPlan {
    /// Queries that are scanned together.
    pub slice: usize,
    /// Hits that a hit list has room for: k and a whole chunk, so that it never overflows.
    pub capacity: usize,
    /// Chunks of each submission, in ascending position.
    pub submissions: Vec<Vec<Chunk>>,
}

impl ScanPlan {
    /// Plans a scan of all `shards`.
    ///
    /// # Errors
    /// If not even one query's hit list, or the query itself, fits one binding.
    pub fn new(shape: &ScanShape, shards: &[Range<usize>], limits: &ScanLimits) -> Result<ScanPlan> {
        let (n_items, k) = (shards.last().map_or(0, |shard| shard.end), shape.k);
        let least_chunk = limits.first_chunk.clamp(1, n_items.max(1)).next_multiple_of(TILE);
        let list = (k + least_chunk) as u64 * HIT_BYTES;
        let budget = limits.hit_list_bytes.max(list).min(limits.binding_bytes);
        let need = list.max(shape.four_query_bytes);
        if need > limits.binding_bytes {
            return Err(Error::Limit { what: "bytes for a single query", need, have: limits.binding_bytes });
        }
        let most = (budget / list).min(limits.binding_bytes / shape.four_query_bytes * 4) as usize;
        let n_slices = shape.n_queries.div_ceil(most.min(limits.workgroups.max(1))).max(1);
        let slice = shape.n_queries.div_ceil(n_slices).max(1);

        let item_flops = slice as u64 * shape.pair_flops;
        let longest = ((budget / HIT_BYTES) as usize / slice - k)
            .min((limits.dispatch_flops / item_flops) as usize)
            .max(least_chunk)
            .min(limits.workgroups.max(1) * TILE)
            .min(n_items.next_multiple_of(TILE));
        let longest_tiles = longest / TILE;
        let next = |scanned: usize| longest_tiles.min((least_chunk / TILE).max(scanned));
        let submissions = submissions(shards, item_flops, limits, next);
        Ok(ScanPlan { slice, capacity: k + longest_tiles * TILE, submissions })
    }
}

/// The chunks of each submission: `next` says how many tiles a dispatch may have when so many have been scanned.
pub(super) fn submissions(
    shards: &[Range<usize>],
    item_flops: u64,
    limits: &ScanLimits,
    next: impl Fn(usize) -> usize,
) -> Vec<Vec<Chunk>> {
    let mut submissions: Vec<Vec<Chunk>> = Vec::new();
    let (mut scanned, mut flops) = (0, 0u64);
    for (shard, range) in shards.iter().enumerate() {
        let (mut first_tile, end) = (0, range.len().div_ceil(TILE));
        while first_tile < end {
            let n_tiles = next(scanned).min(end - first_tile);
            let more = (n_tiles * TILE) as u64 * item_flops;
            let chunk = Chunk { shard, first_tile, stride: 1, n_tiles };
            flops = flops.saturating_add(more);
            match submissions.last_mut() {
                Some(submission) if flops <= limits.submission_flops => submission.push(chunk),
                _ => {
                    submissions.push(vec![chunk]);
                    flops = more;
                }
            }
            first_tile += n_tiles;
            scanned += n_tiles;
        }
    }
    submissions
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::single_range_in_vec_init, reason = "tests; an index may be one shard")]
mod tests {
    use super::{Chunk, ScanLimits, ScanPlan, ScanShape, TILE, shards};

    const SHAPE: ScanShape = ScanShape { n_queries: 32, k: 100, four_query_bytes: 8192, pair_flops: 20_480 };

    fn chunks(plan: &ScanPlan) -> Vec<Chunk> {
        plan.submissions.concat()
    }

    #[test]
    fn shards_are_whole_tiles_below_the_limit() {
        let limits = ScanLimits { binding_bytes: 2500, ..ScanLimits::default() };
        assert_eq!(shards(300, 1000, &limits).unwrap(), [0..128, 128..256, 256..300]);
        assert_eq!(shards(128, 1000, &limits).unwrap(), [0..128]);
        assert_eq!(shards(1, 2500, &limits).unwrap(), [0..1]);
        assert!(shards(1, 2501, &limits).unwrap_err().to_string().contains("needs 2501, the device has 2500"));
    }

    #[test]
    fn chunks_double_until_memory_or_time_ends_it() {
        let limits = ScanLimits { dispatch_flops: u64::MAX, submission_flops: u64::MAX, ..ScanLimits::default() };
        let plan = ScanPlan::new(&SHAPE, &[0..1_000_000], &limits).unwrap();
        let tiles: Vec<usize> = chunks(&plan).iter().map(|chunk| chunk.n_tiles).collect();
        // Room for 64 MiB / 8 / 32 = 262,144 hits a query, 100 of them kept: 4,094 whole tiles.
        assert_eq!(tiles, [64, 64, 128, 256, 512, 1024, 2048, 4094, 4094, 3341]);
        assert_eq!((plan.slice, plan.capacity), (32, 100 + 4094 * TILE));

        let limits = ScanLimits { dispatch_flops: 10_000 * 32 * 20_480, ..limits };
        let plan = ScanPlan::new(&SHAPE, &[0..20_000], &limits).unwrap();
        let tiles: Vec<usize> = chunks(&plan).iter().map(|chunk| chunk.n_tiles).collect();
        assert_eq!(tiles, [64, 64, 128, 57]);
    }

    #[test]
    fn submissions_stay_below_their_limit() {
        let chunk = 4096 * 32 * 20_480;
        let limits = ScanLimits { dispatch_flops: 0, submission_flops: 3 * chunk, ..ScanLimits::default() };
        let plan = ScanPlan::new(&SHAPE, &[0..7 * 4096], &limits).unwrap();
        assert_eq!(plan.submissions.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 1]);
    }

    #[test]
    fn long_lists_split_the_batch_and_then_fail() {
        let shards = [0..1_000_000];
        let plan = |k| ScanPlan::new(&ScanShape { k, ..SHAPE }, &shards, &ScanLimits::default());
        // 64 MiB hold 8,388,608 hits: 16 lists of 500,000 + 4,096; 8 of a million.
        assert_eq!(plan(500_000).unwrap().slice, 16);
        assert_eq!(plan(1_000_000).unwrap().slice, 8);
        let small = ScanLimits { binding_bytes: 800_000, ..ScanLimits::default() };
        let error = ScanPlan::new(&ScanShape { k: 100_000, ..SHAPE }, &shards, &small).unwrap_err();
        assert!(error.to_string().contains("needs 832768, the device has 800000"), "{error}");
    }

    #[test]
    fn every_plan_covers_every_tile_once_within_its_limits() {
        for (n_items, n_queries, k) in [(1, 1, 1), (64, 3, 64), (1000, 7, 10), (5000, 33, 700), (5000, 1, 5000)] {
            for first_chunk in [1, 64, 300, 4096] {
                for binding_bytes in [50_000, 100_000, 1 << 30] {
                    for workgroups in [1, 5, 65_535] {
                        let limits = ScanLimits {
                            binding_bytes,
                            workgroups,
                            hit_list_bytes: 20_000,
                            first_chunk,
                            dispatch_flops: 2_000_000,
                            submission_flops: 5_000_000,
                            ..ScanLimits::default()
                        };
                        let shards = shards(n_items, 16_384, &limits).unwrap();
                        let shape = ScanShape { n_queries, k, four_query_bytes: 4096, pair_flops: 100 };
                        let Ok(plan) = ScanPlan::new(&shape, &shards, &limits) else {
                            assert!((k + first_chunk.min(n_items).next_multiple_of(TILE)) as u64 * 8 > binding_bytes);
                            continue;
                        };
                        let tiles = shards.iter().enumerate();
                        let all: Vec<_> = tiles
                            .flat_map(|(shard, range)| (0..range.len().div_ceil(TILE)).map(move |tile| (shard, tile)))
                            .collect();
                        let chunks = chunks(&plan);
                        let covered = chunks.iter().flat_map(|c| (0..c.n_tiles).map(|i| (c.shard, c.first_tile + i)));
                        assert_eq!(covered.collect::<Vec<_>>(), all, "{limits:?}");
                        let longest = chunks.iter().map(|chunk| chunk.n_tiles).max().unwrap();
                        assert!(longest <= workgroups && longest * TILE + k <= plan.capacity, "{limits:?}");
                        assert!((1..=n_queries.min(workgroups)).contains(&plan.slice), "{limits:?}");
                        assert!((plan.slice * plan.capacity) as u64 * 8 <= binding_bytes, "{limits:?}");
                        assert!(plan.submissions.iter().all(|submission| !submission.is_empty()));
                    }
                }
            }
        }
    }
}
