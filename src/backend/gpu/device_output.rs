//! Scans whose queries may come from, and whose results stay on, the device.

use std::ops::Range;

use super::device::Buffer;
use super::first_stage::FirstStage;
use super::index::{GpuIndex, uploaded_rows};
use super::kernels::Recorder;
use super::retrieve::Retriever;
use super::scan::{Scan, chosen};
use crate::backend::{
    CandidateScan, DeviceOutput, Exclusions, GpuHits, GpuQueries, PreparedQueries, Probes, QueryBatch, Retrieval,
    Scorer, SearchContext, check,
};
use crate::error::Parameter;
use crate::tensor::Tensor;
use crate::{Error, Result};

impl DeviceOutput for GpuIndex {
    fn scan_to_buffers(
        &self,
        context: &SearchContext,
        scorer: Scorer,
        queries: GpuQueries,
        k: usize,
        excluded: &Exclusions,
    ) -> Result<GpuHits> {
        let n_queries = queries.n_queries();
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
        let (positions, scores) = self.hit_buffers(n_queries, k)?;
        let raw = |recorder: &mut Recorder, range| self.query_rows(recorder, queries, range);
        match scorer {
            Scorer::Dot => {
                let parts = |recorder: &mut Recorder, range| vec![raw(recorder, range)];
                let scan = self.scan_by(context, &self.dot, n_queries, excluded, &parts);
                scan.write_best(&self.raw, k, [&positions, &scores])?;
            }
            _ => {
                let mol = self.mol()?;
                let (variant, weights) = mol.similarity.scorer(scorer)?;
                let parts = |recorder: &mut Recorder, range: Range<usize>| {
                    let rows = raw(recorder, range.clone());
                    let users = queries.user_ids().map(|users| &users[range.clone()]);
                    mol.similarity.query_side(recorder, &rows, range.len(), users)
                };
                let scan = self.scan_by(context, variant, n_queries, excluded, &parts);
                let scan = Scan { weights: Some(weights), ..scan };
                let tier = chosen(&scan, self.mol_table(mol))?;
                Scan { tier, ..scan }.write_best(self.mol_table(mol), k, [&positions, &scores])?;
            }
        }
        Ok(GpuHits { positions: positions.handle().clone(), scores: scores.handle().clone(), n_queries, k })
    }

    fn retrieve_to_buffers(
        &self,
        context: &SearchContext,
        retrieval: &Retrieval,
        probes: &[Option<Probes>],
        queries: &PreparedQueries,
        k: usize,
        excluded: &Exclusions,
    ) -> Result<GpuHits> {
        let n_queries = queries.batch().len();
        check::top_k(self.host.len(), n_queries, k, excluded)?;
        if retrieval.scans.iter().any(|scan| matches!(scan, CandidateScan::Above { .. })) {
            let expected = "a known number of candidates for results that stay on the GPU";
            return Err(Error::argument(Parameter::Candidates, expected, "all above a threshold"));
        }
        let first_stage = FirstStage::new((self, context), (retrieval, probes), queries, excluded)?;
        let (positions, scores) = self.hit_buffers(n_queries, k)?;
        Retriever(first_stage).write_best(k, [&positions, &scores])?;
        Ok(GpuHits { positions: positions.handle().clone(), scores: scores.handle().clone(), n_queries, k })
    }

    fn queries_on_host(&self, context: &SearchContext, queries: GpuQueries) -> Result<QueryBatch> {
        let (n_queries, dim) = (queries.n_queries(), self.host.raw.width());
        match queries {
            GpuQueries::Host(queries) => return Ok(queries.clone()),
            GpuQueries::Device { embeddings, .. } => check_buffer(embeddings, 4 * (n_queries * dim) as u64)?,
        }
        let mut recorder = Recorder::with_context(context, &self.gpu);
        let rows = self.query_rows(&mut recorder, queries, 0..n_queries);
        let embeddings = Tensor::new([n_queries, dim], bytemuck::pod_collect_to_vec(&recorder.read_bytes(&rows)?))?;
        Ok(QueryBatch { user_ids: queries.user_ids().map(<[i64]>::to_vec), ..QueryBatch::new(embeddings) })
    }
}

impl GpuIndex {
    /// Buffers for the positions, and for the scores, of the best `k` of so many queries.
    fn hit_buffers(&self, n_queries: usize, k: usize) -> Result<(Buffer, Buffer)> {
        let bytes = 4 * (n_queries * k) as u64;
        Ok((self.gpu.buffer(bytes)?, self.gpu.buffer(bytes)?))
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
        return Err(Error::argument(Parameter::QueryEmbeddings, expected, found));
    }
    Ok(())
}
