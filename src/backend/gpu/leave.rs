//! Scans whose queries may come from, and whose results stay on, the device.

use std::ops::Range;

use super::index::{GpuIndex, uploaded_rows};
use super::scan::Scan;
use super::{Buffer, Recorder};
use crate::backend::{Exclusions, QueryBatch, Scorer, check};
use crate::{Error, Result};

/// Queries on the host, or on the device of the index.
#[derive(Clone, Copy, Debug)]
pub enum GpuQueries<'a> {
    /// On the host.
    Host(&'a QueryBatch),
    /// On the device.
    Device {
        /// (B, D) f32, row-major, from the start of a buffer with usage `COPY_SRC`; what lies behind is not read. Values must be
        /// finite: they are not looked at.
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
    fn len(&self) -> usize {
        match self {
            GpuQueries::Host(queries) => queries.len(),
            GpuQueries::Device { n_queries, .. } => *n_queries,
        }
    }

    fn user_ids(&self) -> Option<&[i64]> {
        match self {
            GpuQueries::Host(queries) => queries.user_ids.as_deref(),
            GpuQueries::Device { user_ids, .. } => *user_ids,
        }
    }
}

impl GpuIndex {
    /// [`DeviceIndex::scan`](crate::backend::DeviceIndex::scan) that reads nothing back and does not wait.
    ///
    /// # Errors
    /// As there, or if the buffer of the queries is too small or cannot be copied from.
    pub fn scan_to_buffers(
        &self,
        scorer: Scorer,
        queries: GpuQueries,
        k: usize,
        excluded: &Exclusions,
    ) -> Result<GpuHits> {
        let n_queries = queries.len();
        match queries {
            GpuQueries::Host(queries) => check::scan(self.extent(), scorer, queries, k, excluded)?,
            GpuQueries::Device { embeddings, .. } => {
                check::top_k(self.host.len(), n_queries, k, excluded)?;
                check_buffer(embeddings, 4 * (n_queries * self.host.raw.width()) as u64)?;
                if let (Some(mol), true) = (self.extent().2, scorer != Scorer::Dot) {
                    check::users(mol, n_queries, queries.user_ids())?;
                }
            }
        }
        let words = 4 * (n_queries * k) as u64;
        let (positions, scores) = (self.gpu.buffer(words)?, self.gpu.buffer(words)?);
        let raw = |recorder: &mut Recorder, range| self.query_rows(recorder, queries, range);
        match scorer {
            Scorer::Dot => {
                let parts = |recorder: &mut Recorder, range| vec![raw(recorder, range)];
                let scan = self.scan_by(&self.dot, n_queries, excluded, &parts);
                scan.leave_best(&self.raw, k, [&positions, &scores])?;
            }
            _ => {
                let mol = self.mol()?;
                let (program, weights) = mol.side.scorer(scorer)?;
                let parts = |recorder: &mut Recorder, range: Range<usize>| {
                    let rows = raw(recorder, range.clone());
                    let users = queries.user_ids().map(|users| &users[range.clone()]);
                    mol.side.query_parts(recorder, &rows, range.len(), users)
                };
                let scan = Scan { weights: Some(weights), ..self.scan_by(program, n_queries, excluded, &parts) };
                scan.leave_best(self.mol_table(mol), k, [&positions, &scores])?;
            }
        }
        Ok(GpuHits { positions: positions.handle().clone(), scores: scores.handle().clone(), n_queries, k })
    }

    /// Raw embeddings of some of the queries, in a buffer of the recorder's: a part of the host's may not be aligned as a
    /// binding must be.
    fn query_rows(&self, recorder: &mut Recorder, queries: GpuQueries, range: Range<usize>) -> Buffer {
        match queries {
            GpuQueries::Host(queries) => uploaded_rows(recorder, &queries.embeddings, range),
            GpuQueries::Device { embeddings, .. } => {
                let row = 4 * self.host.raw.width() as u64;
                let all = Buffer::foreign(embeddings.clone());
                let rows = recorder.temporary(range.len() as u64 * row);
                recorder.copy(&all.slice(range.start as u64 * row..range.end as u64 * row), &rows);
                rows
            }
        }
    }
}

fn check_buffer(buffer: &wgpu::Buffer, bytes: u64) -> Result<()> {
    if buffer.size() < bytes || !buffer.usage().contains(wgpu::BufferUsages::COPY_SRC) {
        let expected = format!("a buffer of {bytes} bytes or more with usage COPY_SRC");
        let found = format!("{} bytes with usage {:?}", buffer.size(), buffer.usage());
        return Err(Error::argument("query embeddings", expected, found));
    }
    Ok(())
}
