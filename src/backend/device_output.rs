//! Results that stay on the device: what an index offers where its device is a GPU that others compute on as well.

use super::{Exclusions, PreparedQueries, Probes, QueryBatch, Retrieval, Scorer, SearchContext};
use crate::Result;

/// Queries on the host, or on the device of the index.
#[derive(Clone, Copy, Debug)]
pub enum GpuQueries<'a> {
    /// On the host.
    Host(&'a QueryBatch),
    /// On the device.
    Device {
        /// (B, D) f32, row-major, from the start of a buffer with usage `COPY_SRC`; what lies behind is not read. Values must be
        /// finite, and not so large that scores overflow: they are not looked at.
        embeddings: &'a wgpu::Buffer,
        /// B.
        n_queries: usize,
        /// (B): the user of each query. Only models with uid embeddings need them.
        user_ids: Option<&'a [i64]>,
    },
}

impl<'a> From<&'a QueryBatch> for GpuQueries<'a> {
    fn from(queries: &'a QueryBatch) -> GpuQueries<'a> {
        GpuQueries::Host(queries)
    }
}

/// The best items of B queries, in buffers of the device with usages `STORAGE`, `COPY_SRC` and `COPY_DST`. They belong to
/// whoever holds them. The scan has been submitted, perhaps not done: what is submitted to the same queue comes after
/// it, and needs no other synchronisation.
#[derive(Clone, Debug)]
pub struct GpuHits {
    /// (B, k) u32, row-major: positions, by score descending, then position ascending. A row with fewer than k items ends in
    /// `0xffffffff`.
    pub positions: wgpu::Buffer,
    /// (B, k) f32, row-major: the scores of these positions; -infinity where there is none.
    pub scores: wgpu::Buffer,
    /// B.
    pub n_queries: usize,
    /// Items per query.
    pub k: usize,
}

impl GpuQueries<'_> {
    pub(super) fn n_queries(&self) -> usize {
        match self {
            GpuQueries::Host(queries) => queries.len(),
            GpuQueries::Device { n_queries, .. } => *n_queries,
        }
    }

    pub(super) fn user_ids(&self) -> Option<&[i64]> {
        match self {
            GpuQueries::Host(queries) => queries.user_ids.as_deref(),
            GpuQueries::Device { user_ids, .. } => *user_ids,
        }
    }
}

/// Scans whose queries may come from, and whose results stay on, the device.
pub trait DeviceOutput {
    /// [`DeviceIndex::scan`](super::DeviceIndex::scan) that reads nothing back and does not wait.
    ///
    /// # Errors
    /// As there, or if the buffer of the queries is too small or cannot be copied from.
    fn scan_to_buffers(
        &self,
        context: &SearchContext,
        scorer: Scorer,
        queries: GpuQueries,
        k: usize,
        excluded: &Exclusions,
    ) -> Result<GpuHits>;

    /// [`DeviceIndex::retrieve`](super::DeviceIndex::retrieve) that reads nothing back and does not wait.
    ///
    /// # Errors
    /// As there, if there is no room for the candidates of a query, or if their number is known afterwards only
    /// ([`CandidateScan::Above`](super::CandidateScan::Above)).
    fn retrieve_to_buffers(
        &self,
        context: &SearchContext,
        retrieval: &Retrieval,
        probes: &[Option<Probes>],
        queries: &PreparedQueries,
        k: usize,
        excluded: &Exclusions,
    ) -> Result<GpuHits>;

    /// Queries on the host, which waits for them where they are on the device.
    ///
    /// # Errors
    /// As [`DeviceOutput::scan_to_buffers`].
    fn queries_on_host(&self, context: &SearchContext, queries: GpuQueries) -> Result<QueryBatch>;
}
