//! The running top-k of a scan: survivor lists, their thresholds, and the order in the end.

use super::kernel::{ParamsLayout, params};
use super::{Bind, Buffer, KernelSpec, Recorder};
use crate::Result;
use crate::backend::ScoredPosition;

/// Threads of a workgroup of the kernels here.
const WIDTH: usize = 256;

/// Hits that one workgroup sorts in its own memory.
const BLOCK: usize = 1024;

/// Most hits per query: comparators of one pass are counted along one axis of the grid.
pub(super) const MOST_HITS: usize = 65_535 * WIDTH * 2 / BLOCK * BLOCK;

/// Survivors of each query of a batch.
#[derive(Debug)]
pub(super) struct TopK {
    n_queries: usize,
    k: usize,
    capacity: usize,
    /// (B) of (threshold, count).
    pub state: Buffer,
    /// (B, capacity) of (key, !position).
    pub survivors: Buffer,
}

impl TopK {
    /// Empty lists for up to `capacity` survivors each.
    pub fn new(recorder: &mut Recorder, n_queries: usize, k: usize, capacity: usize) -> TopK {
        let state = recorder.temporary(n_queries as u64 * 8);
        let survivors = recorder.temporary((n_queries * capacity) as u64 * 8);
        recorder.clear(&state);
        TopK { n_queries, k, capacity, state, survivors }
    }

    /// Hits that each list has room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Cuts every list to its best k and raises its threshold.
    pub fn select(&self, recorder: &mut Recorder) {
        let params = SelectParams { k: self.k as u32, capacity: self.capacity as u32 };
        let grid = [self.n_queries as u32, 1, 1];
        recorder.dispatch(&select_kernel(), &params, &[&self.state, &self.survivors], grid);
    }

    /// Completes all commands and returns the best k of every query, in order. [`TopK::select`] comes before.
    pub fn finish(self, recorder: &mut Recorder) -> Result<Vec<Vec<ScoredPosition>>> {
        let hits = recorder.temporary((self.n_queries * self.k) as u64 * 8);
        let [sort_blocks, merge_far, merge_near] = sort_kernels();
        let mut pass = |kernel: &KernelSpec, groups: usize, run: usize, stride: usize| {
            let (k, capacity) = (self.k as u32, self.capacity as u32);
            let params = SortParams { k, capacity, run: run as u32, stride: stride as u32 };
            let grid = [groups as u32, self.n_queries as u32, 1];
            recorder.dispatch(kernel, &params, &[&self.state, &self.survivors, &hits], grid);
        };
        let blocks = self.k.div_ceil(BLOCK);
        pass(&sort_blocks, blocks, 0, 0);
        let mut run = 2 * BLOCK;
        while run / 2 < self.k {
            let comparators = self.k.next_multiple_of(run) / 2;
            let mut stride = run / 2;
            while stride >= BLOCK {
                pass(&merge_far, comparators / WIDTH, run, stride);
                stride /= 2;
            }
            pass(&merge_near, blocks, 0, 0);
            run *= 2;
        }
        let read = recorder.read_all(&[&self.state, &hits])?;
        let counts = read[0].chunks_exact(8).map(|state| word(state, 4) as usize);
        let lists = read[1].chunks_exact(self.k * 8);
        Ok(lists.zip(counts).map(|(list, count)| list.chunks_exact(8).take(count).map(hit).collect()).collect())
    }
}

/// Keeps the best k hits of every list.
fn select_kernel() -> KernelSpec {
    let source = include_str!("../../../shaders/select.wgsl");
    KernelSpec::new("select", source, &[Bind::Params, Bind::Write, Bind::Write])
}

/// `sort_blocks`, `merge_far`, `merge_near`.
fn sort_kernels() -> [KernelSpec; 3] {
    const SHARED: &str = include_str!("../../../shaders/lib/sort.wgsl");
    const TILE: &str = include_str!("../../../shaders/lib/sort_tile.wgsl");
    let kernel = |label, sources: &[&'static str]| KernelSpec {
        sources: sources.iter().map(|&source| source.into()).collect(),
        ..KernelSpec::new(label, "", &[Bind::Params, Bind::Read, Bind::Read, Bind::Write])
    };
    [
        kernel("sort_blocks", &[SHARED, TILE, include_str!("../../../shaders/sort_blocks.wgsl")]),
        kernel("merge_far", &[SHARED, include_str!("../../../shaders/merge_far.wgsl")]),
        kernel("merge_near", &[SHARED, TILE, include_str!("../../../shaders/merge_near.wgsl")]),
    ]
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn hit(bytes: &[u8]) -> ScoredPosition {
    ScoredPosition { position: !word(bytes, 4), score: score_of(word(bytes, 0)) }
}

/// The score that `order_key` of `survivors.wgsl` maps to `key`.
fn score_of(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key & 0x7fff_ffff } else { !key })
}

params!(SelectParams { k: u32, capacity: u32 });

params!(SortParams { k: u32, capacity: u32, run: u32, stride: u32 });

/// All kernels of the top-k, for tests of `shaders/`.
pub(super) fn kernel_specs() -> Vec<(KernelSpec, ParamsLayout)> {
    let sort = sort_kernels().map(|kernel| (kernel, SortParams::LAYOUT));
    [(select_kernel(), SelectParams::LAYOUT)].into_iter().chain(sort).collect()
}

#[cfg(test)]
mod tests {
    use super::score_of;

    #[test]
    fn keys_map_back_to_scores() {
        assert_eq!(score_of(0x8000_0000).to_bits(), 0f32.to_bits());
        assert_eq!(score_of(0x8000_0000 | 1.5f32.to_bits()), 1.5);
        assert_eq!(score_of(!(-1.5f32).to_bits()), -1.5);
    }
}
