//! The running top-k of a scan: the selection of the best hits, and the order in the end.

use super::hit_lists::{HIT_BYTES, HitLists, hit};
use super::kernels::{
    MergeParams, SelectParams, SplitParams, WIDTH, merge_kernel, select_kernel, sort_kernel, split_kernel,
};
use super::long_lists::{LongSelect, list_workgroups};
use crate::backend::Hits;
use crate::backend::gpu::device::Buffer;
use crate::backend::gpu::kernels::Recorder;
use crate::{Error, Result};

/// Hits that one workgroup sorts in its own memory.
const BLOCK: usize = 1024;

/// Sorted runs that one dispatch merges.
const FAN_IN: usize = 16;

/// Most hits per query: blocks are counted along one axis of the grid.
const MOST_HITS: usize = 65_535 * BLOCK;

/// The best k hits of each query of a batch.
#[derive(Debug)]
pub(crate) struct TopK {
    k: usize,
    pub lists: HitLists,
    /// Items scanned so far.
    scanned: usize,
    /// Made when it is first needed.
    long: Option<LongSelect>,
}

impl TopK {
    /// Empty lists for up to `capacity` hits each.
    pub fn new(recorder: &mut Recorder, n_queries: usize, k: usize, capacity: usize) -> TopK {
        TopK { k, lists: HitLists::new(recorder, n_queries, capacity), scanned: 0, long: None }
    }

    /// The best of lists that are there already.
    pub fn of(lists: HitLists, k: usize) -> TopK {
        TopK { k, lists, scanned: 0, long: None }
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

    /// Cuts every list, to which `items` more have been offered, to its best k and raises its threshold. Lists of `long_list` hits
    /// or more are long.
    pub fn select(&mut self, recorder: &mut Recorder, items: usize, long_list: usize) {
        let HitLists { n_queries, capacity, state, hits } = &self.lists;
        let workgroups = list_workgroups(*n_queries, self.k, (self.scanned, items), long_list);
        self.scanned += items;
        if workgroups > 1 {
            let long = self.long.get_or_insert_with(|| LongSelect::new(recorder, &self.lists));
            return long.select(recorder, self.k, &mut self.lists, workgroups);
        }
        let params = SelectParams { k: self.k as u32, capacity: *capacity as u32 };
        recorder.dispatch(&select_kernel(), &params, &[state, hits], [*n_queries as u32, 1, 1]);
    }

    /// The best k of every query, in order. [`TopK::select`] comes before.
    pub fn sorted(&self, recorder: &mut Recorder) -> SortedHits {
        SortedHits { k: self.k, state: self.lists.state.clone(), hits: self.sorted_hits(recorder) }
    }

    /// (B, k) of (key, !position).
    fn sorted_hits(&self, recorder: &mut Recorder) -> Buffer {
        let HitLists { n_queries, capacity, state, hits: unsorted } = &self.lists;
        let k = self.k as u32;
        let grid = [self.k.div_ceil(BLOCK) as u32, *n_queries as u32, 1];
        let mut list = || recorder.temporary((n_queries * self.k) as u64 * 8);
        let (mut hits, other) = (list(), (self.k > BLOCK).then(list));
        let params = SelectParams { k, capacity: *capacity as u32 };
        recorder.dispatch(&sort_kernel(), &params, &[state, unsorted, &hits], grid);
        let Some(mut merged) = other else { return hits };
        let mut run = BLOCK;
        while run < self.k {
            let params = MergeParams { k, run: run as u32 };
            recorder.dispatch(&merge_kernel(), &params, &[state, &hits, &merged], grid);
            std::mem::swap(&mut hits, &mut merged);
            run *= FAN_IN;
        }
        hits
    }

    /// Completes all commands and returns the best k of every query, in order, and how many items were left out for
    /// each. [`TopK::select`] comes before.
    pub fn finish(self, recorder: &mut Recorder) -> Result<(Hits, Vec<u32>)> {
        let sorted = self.sorted(recorder);
        let read = recorder.read_all(&sorted.buffers())?;
        let pruned = HitLists::states(&read[0]).map(|state| state.pruned).collect();
        Ok((sorted.hits(&read[0], &read[1]), pruned))
    }

    /// Records that the best k of every query go to rows `first_query..` of `positions` and `scores`, each (.., k).
    /// [`TopK::select`] comes before.
    pub fn write(self, recorder: &mut Recorder, [positions, scores]: [&Buffer; 2], first_query: usize) {
        let hits = self.sorted_hits(recorder);
        let params = SplitParams { k: self.k as u32, first_query: first_query as u32 };
        let grid = [self.k.div_ceil(WIDTH) as u32, self.lists.n_queries as u32, 1];
        recorder.dispatch(&split_kernel(), &params, &[&self.lists.state, &hits, positions, scores], grid);
    }
}

/// The best k hits of each query of a batch, in order, to be read.
#[derive(Debug)]
pub(crate) struct SortedHits {
    k: usize,
    /// Of the lists.
    state: Buffer,
    /// (B, k) of (key, !position).
    hits: Buffer,
}

impl SortedHits {
    /// What [`SortedHits::hits`] reads the bytes of.
    pub fn buffers(&self) -> [&Buffer; 2] {
        [&self.state, &self.hits]
    }

    /// The hits of the bytes of the buffers.
    pub fn hits(&self, state: &[u8], hits: &[u8]) -> Hits {
        let lists = hits.chunks_exact(self.k * HIT_BYTES as usize).zip(HitLists::states(state));
        let hits = |list: &[u8], count| list.chunks_exact(HIT_BYTES as usize).take(count).map(hit).collect();
        lists.map(|(list, state)| hits(list, state.count)).collect()
    }
}
