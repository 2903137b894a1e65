//! Sizes of a scan, computed before anything is dispatched: shards of the index, slices of the batch, chunks of items
//! and submissions of chunks. Pure arithmetic on counts and limits.

use std::ops::Range;

use super::Gpu;
use crate::{Error, Result};

/// Items side by side in the interleaved tables, and threads of a workgroup of the scan.
pub const TILE: usize = 64;

/// Bytes of one hit in a survivor list.
const HIT_BYTES: u64 = 8;

/// What a plan has to stay below. [`ScanLimits::default`] suits every device once its own limits are filled in; tests set
/// tiny ones to cross every border.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanLimits {
    /// Bytes that one binding may cover.
    pub binding_bytes: u64,
    /// Workgroups along one axis of a grid.
    pub workgroups: usize,
    /// Bytes of the survivor lists of one slice of the batch; exceeded only if the list of a single query is longer.
    pub survivor_bytes: u64,
    /// Items of the first chunk. Later chunks are as long as everything before them: as the k-th score rises, each then
    /// yields about as many survivors, and the first one, which passes whole, is short.
    pub first_chunk: usize,
    /// Floating-point operations of one dispatch.
    pub dispatch_flops: u64,
    /// Floating-point operations of one submission. Operating systems reset a GPU that does not answer for 2 to 10 s; a
    /// slow integrated GPU (200 GFLOP/s) takes 1 s for this.
    pub submission_flops: u64,
}

impl Default for ScanLimits {
    fn default() -> ScanLimits {
        ScanLimits {
            // Metal can miscompute on bindings of 4 GiB, Vulkan and DX12 end at 2 GiB; 1 GiB is safe everywhere.
            binding_bytes: 1 << 30,
            workgroups: 65_535,
            survivor_bytes: 64 << 20,
            first_chunk: 4096,
            dispatch_flops: 50_000_000_000,
            submission_flops: 200_000_000_000,
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
    /// Bytes of one query in the packed query table.
    pub query_bytes: u64,
    /// Floating-point operations of one (query, item) pair.
    pub pair_flops: u64,
}

/// How a batch is scanned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanPlan {
    /// Queries that are scanned together.
    pub slice: usize,
    /// Hits that a survivor list has room for: k and a whole chunk, so that it never overflows.
    pub capacity: usize,
    /// Chunks of each submission, in ascending position.
    pub submissions: Vec<Vec<Chunk>>,
}

impl ScanPlan {
    /// Plans a scan of all `shards`.
    ///
    /// # Errors
    /// If not even one query's survivor list, or the query itself, fits one binding.
    pub fn new(shape: &ScanShape, shards: &[Range<usize>], limits: &ScanLimits) -> Result<ScanPlan> {
        let (n_items, k) = (shards.last().map_or(0, |shard| shard.end), shape.k);
        let least_chunk = limits.first_chunk.min(n_items).next_multiple_of(TILE);
        let list = (k + least_chunk) as u64 * HIT_BYTES;
        let budget = limits.survivor_bytes.max(list).min(limits.binding_bytes);
        let need = list.max(shape.query_bytes);
        if need > limits.binding_bytes {
            return Err(Error::Limit { what: "bytes for a single query", need, have: limits.binding_bytes });
        }
        let most = (budget / list).min(limits.binding_bytes / shape.query_bytes) as usize;
        let n_slices = shape.n_queries.div_ceil(most.min(limits.workgroups)).max(1);
        let slice = shape.n_queries.div_ceil(n_slices).max(1);

        let item_flops = slice as u64 * shape.pair_flops;
        let longest = ((budget / HIT_BYTES) as usize / slice - k)
            .min((limits.dispatch_flops / item_flops) as usize)
            .max(least_chunk)
            .min(limits.workgroups * TILE)
            .min(n_items.next_multiple_of(TILE));
        let longest_tiles = longest / TILE;

        let mut submissions: Vec<Vec<Chunk>> = Vec::new();
        let (mut scanned, mut flops) = (0, u64::MAX);
        for (shard, range) in shards.iter().enumerate() {
            let (mut first_tile, end) = (0, range.len().div_ceil(TILE));
            while first_tile < end {
                let n_tiles = longest_tiles.min((least_chunk / TILE).max(scanned)).min(end - first_tile);
                let more = (n_tiles * TILE) as u64 * item_flops;
                flops = flops.saturating_add(more);
                if flops > limits.submission_flops {
                    submissions.push(Vec::new());
                    flops = more;
                }
                submissions.last_mut().into_iter().for_each(|s| s.push(Chunk { shard, first_tile, n_tiles }));
                first_tile += n_tiles;
                scanned += n_tiles;
            }
        }
        Ok(ScanPlan { slice, capacity: k + longest_tiles * TILE, submissions })
    }
}
