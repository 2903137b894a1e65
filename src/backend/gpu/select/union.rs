//! The union of hit lists: what some vectors of each query have found, every item once.

use super::hit_lists::{HIT_BYTES, HitLists};
use super::kernels::{UniteParams, WIDTH, unite_kernel};
use crate::backend::gpu::device::Buffer;
use crate::backend::gpu::kernels::Recorder;

/// Lists that grow by the hits of others: see `shaders/select/unite_hits.wgsl`.
#[derive(Debug)]
pub(crate) struct Union {
    /// One list per query.
    pub lists: HitLists,
    /// (B, slots) of positions.
    seen: Buffer,
    slots: usize,
}

/// Places of the hash table of a list of `capacity` hits.
fn slots(capacity: usize) -> usize {
    (2 * capacity).next_power_of_two().max(WIDTH)
}

/// Bytes of the longest array that a union of `capacity` hits takes for a query.
pub(crate) fn union_bytes(capacity: usize) -> u64 {
    (slots(capacity) as u64 * 4).max(capacity as u64 * HIT_BYTES)
}

impl Union {
    /// Empty lists of `n_queries` queries for up to `capacity` hits each, which all that are added to must have room for.
    pub fn new(recorder: &mut Recorder, n_queries: usize, capacity: usize) -> Union {
        let slots = slots(capacity);
        let seen = recorder.temporary((n_queries * slots) as u64 * 4);
        recorder.clear(&seen);
        Union { lists: HitLists::new(recorder, n_queries, capacity), seen, slots }
    }

    /// Adds up to `longest` hits of each list of `found`, of which every query has `per_query`, one after the other.
    pub fn add(&self, recorder: &mut Recorder, found: &HitLists, longest: usize, per_query: usize) {
        let params = UniteParams {
            found_capacity: found.capacity as u32,
            per_query: per_query as u32,
            slots: self.slots as u32,
            capacity: self.lists.capacity as u32,
        };
        let buffers = [&found.state, &found.hits, &self.seen, &self.lists.state, &self.lists.hits];
        let grid = [longest.div_ceil(WIDTH) as u32, found.n_queries as u32, 1];
        recorder.dispatch(&unite_kernel(), &params, &buffers, grid);
    }
}
