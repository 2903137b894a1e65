//! The running top-k of a scan: the selection of the best survivors, and the order in the end.

use super::kernel::{ParamsLayout, params};
use super::survivors::{Survivors, score_of, word};
use super::{Bind, Buffer, KernelSpec, Recorder};
use crate::backend::{Hits, ScoredPosition};
use crate::{Error, Result};

/// Threads of a workgroup of the kernels here.
const WIDTH: usize = 256;

/// Hits that one workgroup sorts in its own memory.
const BLOCK: usize = 1024;

/// Most hits per query: comparators of one pass are counted along one axis of the grid.
const MOST_HITS: usize = 65_535 * WIDTH * 2 / BLOCK * BLOCK;

/// The best k survivors of each query of a batch.
#[derive(Debug)]
pub(super) struct TopK {
    k: usize,
    pub survivors: Survivors,
}

impl TopK {
    /// Empty lists for up to `capacity` survivors each.
    pub fn new(recorder: &mut Recorder, n_queries: usize, k: usize, capacity: usize) -> TopK {
        TopK { k, survivors: Survivors::new(recorder, n_queries, capacity) }
    }

    /// Whether so many hits can be sorted.
    ///
    /// # Errors
    /// If not.
    pub fn check(k: usize) -> Result<()> {
        match k <= MOST_HITS {
            true => Ok(()),
            false => Err(Error::Limit { what: "k on a GPU", need: k as u64, have: MOST_HITS as u64 }),
        }
    }

    /// Cuts every list to its best k and raises its threshold.
    pub fn select(&self, recorder: &mut Recorder) {
        let Survivors { n_queries, capacity, state, hits } = &self.survivors;
        let params = SelectParams { k: self.k as u32, capacity: *capacity as u32 };
        recorder.dispatch(&select_kernel(), &params, &[state, hits], [*n_queries as u32, 1, 1]);
    }

    /// The best k of every query, in order: (B, k) of (key, !position). [`TopK::select`] comes before.
    fn sort(&self, recorder: &mut Recorder) -> Buffer {
        let Survivors { n_queries, capacity, state, hits: survivors } = &self.survivors;
        let hits = recorder.temporary((n_queries * self.k) as u64 * 8);
        let [sort_blocks, merge_far, merge_near] = sort_kernels();
        let mut pass = |kernel: &KernelSpec, groups: usize, run: usize, stride: usize| {
            let (k, capacity) = (self.k as u32, *capacity as u32);
            let params = SortParams { k, capacity, run: run as u32, stride: stride as u32 };
            let grid = [groups as u32, *n_queries as u32, 1];
            recorder.dispatch(kernel, &params, &[state, survivors, &hits], grid);
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
        hits
    }

    /// Completes all commands and returns the best k of every query, in order, and how many items were left out for
    /// each. [`TopK::select`] comes before.
    pub fn finish(self, recorder: &mut Recorder) -> Result<(Hits, Vec<u32>)> {
        let hits = self.sort(recorder);
        let read: [&Buffer; 2] = [&self.survivors.state, &hits];
        let read = recorder.read_all(&read)?;
        let states = Survivors::states(&read[0]);
        let lists = read[1].chunks_exact(self.k * 8);
        let sorted = lists.zip(states).map(|(list, state)| {
            let hits = list.chunks_exact(8).take(state.count).map(hit).collect::<Vec<_>>();
            (hits, state.pruned)
        });
        Ok(sorted.unzip())
    }

    /// Records that the best k of every query go to rows `first_query..` of `positions` and `scores`, each (.., k).
    /// [`TopK::select`] comes before.
    pub fn leave(self, recorder: &mut Recorder, [positions, scores]: [&Buffer; 2], first_query: usize) {
        let hits = self.sort(recorder);
        let params = SplitParams { k: self.k as u32, first_query: first_query as u32 };
        let grid = [self.k.div_ceil(WIDTH) as u32, self.survivors.n_queries as u32, 1];
        recorder.dispatch(&split_kernel(), &params, &[&self.survivors.state, &hits, positions, scores], grid);
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

/// Hits as two arrays.
fn split_kernel() -> KernelSpec {
    let source = include_str!("../../../shaders/split_hits.wgsl");
    KernelSpec::new("split_hits", source, &[Bind::Params, Bind::Read, Bind::Read, Bind::Write, Bind::Write])
}

fn hit(bytes: &[u8]) -> ScoredPosition {
    ScoredPosition { position: !word(bytes, 4), score: score_of(word(bytes, 0)) }
}

params!(SelectParams { k: u32, capacity: u32 });

params!(SortParams { k: u32, capacity: u32, run: u32, stride: u32 });

params!(SplitParams { k: u32, first_query: u32 });

/// All kernels of the top-k, for tests of `shaders/`.
pub(super) fn kernel_specs() -> Vec<(KernelSpec, ParamsLayout)> {
    let sort = sort_kernels().map(|kernel| (kernel, SortParams::LAYOUT));
    let others = [(select_kernel(), SelectParams::LAYOUT), (split_kernel(), SplitParams::LAYOUT)];
    others.into_iter().chain(sort).collect()
}
