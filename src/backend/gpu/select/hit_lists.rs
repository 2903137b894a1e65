//! Hit lists: what the scan kernels append to, one list per query.

use super::kernels::{ThresholdParams, WIDTH, threshold_kernel};
use crate::Result;
use crate::backend::gpu::device::Buffer;
use crate::backend::gpu::kernels::Recorder;
use crate::backend::order_key::{order_key, score_of};
use crate::backend::{Hits, ScoredPosition};

/// Bytes of the state of a query: threshold, count, items left out.
const STATE_BYTES: usize = 12;

/// Bytes of a hit: key, !position.
pub(crate) const HIT_BYTES: u64 = 8;

/// The hits of each query of a batch so far, in no order.
#[derive(Debug)]
pub(crate) struct HitLists {
    pub n_queries: usize,
    /// Hits that each list has room for.
    pub capacity: usize,
    /// (B) of (threshold, count, pruned).
    pub state: Buffer,
    /// (B, capacity) of (key, !position).
    pub hits: Buffer,
}

/// What kernels say about the list of one query.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListState {
    /// Key that hits had to exceed; 0 where everything passed.
    pub threshold: u32,
    /// Hits that passed the filter, whether there was room or not.
    pub count: usize,
    /// Items left out.
    pub pruned: u32,
}

impl HitLists {
    /// Empty lists that everything may enter.
    pub fn new(recorder: &mut Recorder, n_queries: usize, capacity: usize) -> HitLists {
        let state = recorder.temporary((n_queries * STATE_BYTES) as u64);
        recorder.clear(&state);
        let hits = recorder.temporary((n_queries * capacity) as u64 * HIT_BYTES);
        HitLists { n_queries, capacity, state, hits }
    }

    /// Empty lists for scores of at least the threshold of the list.
    pub fn at_least(recorder: &mut Recorder, thresholds: &[f32], capacity: usize) -> HitLists {
        // A scan in ascending position passes keys above the threshold.
        let state: Vec<[u32; 3]> = thresholds.iter().map(|&threshold| [order_key(threshold) - 1, 0, 0]).collect();
        let state = recorder.upload(&state);
        let hits = recorder.temporary((thresholds.len() * capacity) as u64 * HIT_BYTES);
        HitLists { n_queries: thresholds.len(), capacity, state, hits }
    }

    /// Records that the lists, cut to their best k, are emptied for scores that are not worse than the worst one in them.
    pub fn take_threshold(&self, recorder: &mut Recorder) {
        let params = ThresholdParams { n_queries: self.n_queries as u32 };
        let grid = [self.n_queries.div_ceil(WIDTH) as u32, 1, 1];
        recorder.dispatch(&threshold_kernel(), &params, &[&self.state], grid);
    }

    /// Records what the lists have passed until now, of which the best `k` are wanted.
    pub fn passed(&self, recorder: &mut Recorder, k: usize) -> Passed {
        let state = recorder.temporary(self.state.bytes());
        recorder.copy(&self.state, &state);
        Passed { state, capacity: self.capacity, k }
    }

    /// [`ListState`] of the bytes of `state`.
    pub fn states(bytes: &[u8]) -> impl Iterator<Item = ListState> {
        let state = |state: &[u8]| ListState {
            threshold: word(state, 0),
            count: word(state, 4) as usize,
            pruned: word(state, 8),
        };
        bytes.chunks_exact(STATE_BYTES).map(state)
    }

    /// Completes all commands and returns the positions in every list, ascending; `None` if one had no room.
    pub fn positions(&self, recorder: &mut Recorder) -> Result<Option<Vec<Vec<u32>>>> {
        let positions = |list: &Vec<ScoredPosition>| list.iter().map(|hit| hit.position).collect();
        Ok(self.scored(recorder)?.map(|lists| lists.iter().map(positions).collect()))
    }

    /// [`HitLists::positions`] with their scores.
    pub fn scored(&self, recorder: &mut Recorder) -> Result<Option<Hits>> {
        let counts: Vec<usize> =
            HitLists::states(&recorder.read_bytes(&self.state)?).map(|state| state.count).collect();
        if counts.iter().any(|&count| count > self.capacity) {
            return Ok(None);
        }
        let list = |(query, &count): (usize, &usize)| {
            let start = (query * self.capacity) as u64 * HIT_BYTES;
            self.hits.slice(start..start + count as u64 * HIT_BYTES)
        };
        let lists: Vec<Buffer> = counts.iter().enumerate().map(list).collect();
        let read = recorder.read_all(&lists.iter().collect::<Vec<_>>())?;
        Ok(Some(read.iter().map(|bytes| by_position(bytes)).collect()))
    }

    /// Records a copy of the lists as they are now.
    pub fn copied(&self, recorder: &mut Recorder) -> HitLists {
        let mut copied = |buffer: &Buffer| {
            let copy = recorder.temporary(buffer.bytes());
            recorder.copy(buffer, &copy);
            copy
        };
        HitLists { state: copied(&self.state), hits: copied(&self.hits), ..*self }
    }

    /// The hits in every list, by position, of the bytes of `state` and of `hits`; there was room for all.
    pub fn listed(&self, state: &[u8], hits: &[u8]) -> Hits {
        let lists = hits.chunks_exact(self.capacity * HIT_BYTES as usize).zip(HitLists::states(state));
        lists.map(|(list, state)| by_position(&list[..state.count * HIT_BYTES as usize])).collect()
    }
}

/// The hits of some bytes; positions ascend.
fn by_position(bytes: &[u8]) -> Vec<ScoredPosition> {
    let mut hits: Vec<_> = bytes.chunks_exact(HIT_BYTES as usize).map(hit).collect();
    hits.sort_unstable_by_key(|hit| hit.position);
    hits
}

/// What hit lists have passed: whether they have the best k of all that was offered is known when this has been read.
#[derive(Debug)]
pub(crate) struct Passed {
    /// A copy of that of the lists.
    pub state: Buffer,
    capacity: usize,
    k: usize,
}

impl Passed {
    /// Of the bytes of the state, for each list whether it lacks some of the best k: there was no room for all that passed, or a
    /// threshold has kept out too many.
    pub fn lacking(&self, state: &[u8]) -> Vec<bool> {
        let lacks = |list: ListState| list.count > self.capacity || (list.count < self.k && list.threshold > 0);
        HitLists::states(state).map(lacks).collect()
    }
}

/// The hit of its bytes.
pub(super) fn hit(bytes: &[u8]) -> ScoredPosition {
    ScoredPosition { position: !word(bytes, 4), score: score_of(word(bytes, 0)) }
}

/// The little-endian word at byte `at`.
fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
