//! Some queries of a set.

use rails_wgpu::Condition;
use rails_wgpu::backend::QueryBatch;

/// Some queries of a set.
pub struct Batch<'a> {
    /// Where each is in the set.
    pub indices: Vec<usize>,
    pub queries: QueryBatch,
    /// One list per query.
    pub seen: Vec<&'a [u64]>,
    /// What items must meet to be found: one condition for all queries, or none.
    pub conditions: &'a [Condition],
}
