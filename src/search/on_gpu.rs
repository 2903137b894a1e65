//! Results that stay on the GPU, for programs that go on with them there.

use std::sync::Arc;

use super::{Algorithm, FirstStage, Searcher};
use crate::backend::{CandidateScan, DeviceOutput, GpuHits, GpuQueries, Scorer, SearchContext};
use crate::error::Parameter;
use crate::index::{Segment, Snapshot};
use crate::{Error, Result};

/// Hits on the GPU, and what their positions mean.
pub struct GpuAnswer {
    /// The buffers.
    pub hits: GpuHits,
    snapshot: Arc<Snapshot>,
}

impl GpuAnswer {
    /// (N) the id at each position, deleted items included; ascending. They are those of the version of the index that was
    /// searched, whatever has changed since.
    ///
    /// For shaders, upload them: [`bytemuck`](https://docs.rs/bytemuck)`::cast_slice` gives N pairs of u32, `vec2<u32>` in
    /// WGSL, the lower half first.
    pub fn ids(&self) -> &[u64] {
        self.snapshot.segments().first().map_or(&[], Segment::ids)
    }
}

impl Searcher {
    /// [`Searcher::search`] whose result stays on the GPU: it is not read back, and not waited for. Commands that the caller
    /// submits to the same queue find the result complete.
    ///
    /// With [`GpuQueries::Device`] and `exact` or `mips` the queries need not leave the GPU either. For all other algorithms the
    /// host prepares the first stage: it reads such queries back, and waits for them.
    ///
    /// The index must lie as one segment on one GPU, as it does when it was built on one and holds no more than
    /// [`IndexOptions::segment_items`](crate::index::IndexOptions::segment_items). [`Algorithm::ExactPruned`] is the same as exact
    /// here. An approximate algorithm must ask for `k` candidates or more, since nobody sees whether it has found enough: where
    /// inverted lists hold too few, rows are short. [`Algorithm::HIndexer`] has no number of candidates and is refused.
    ///
    /// # Errors
    /// As [`Searcher::search`], or if the index or the algorithm is another one.
    pub fn search_on_gpu<'a>(
        &self,
        algorithm: Algorithm,
        queries: impl Into<GpuQueries<'a>>,
        k: usize,
        excluded: &[&[u64]],
    ) -> Result<GpuAnswer> {
        let snapshot = self.index().snapshot();
        let scorer = match (algorithm, snapshot.scorer()) {
            (_, Scorer::MaxSim) => {
                let expected = "an index of single embeddings, for results that stay on the GPU";
                return Err(Error::argument(Parameter::Index, expected, "one of token embeddings"));
            }
            (Algorithm::Mips, _) => Some(Scorer::Dot),
            (Algorithm::Exact | Algorithm::ExactPruned, scorer) => Some(scorer),
            (Algorithm::HIndexer { .. }, _) => {
                let expected = "one with a known number of candidates, for results that stay on the GPU";
                return Err(Error::argument(Parameter::Algorithm, expected, format!("`{algorithm}`")));
            }
            _ => None,
        };
        let expected = "one segment on one GPU (compact the index, or raise `segment_items`)";
        let [segment] = snapshot.segments() else {
            return Err(Error::argument(Parameter::Index, expected, format!("{} segments", snapshot.segments().len())));
        };
        let queries = queries.into();
        if let GpuQueries::Host(queries) = queries {
            snapshot.check_queries(queries)?;
        }
        let k = if k > 0 { k.min(segment.len()) } else { k };
        let context = SearchContext::default();
        let hits = segment.on_device(&context, |device| {
            let elsewhere =
                || Error::argument(Parameter::Index, expected, format!("one on `{}`", segment.backend().info().name));
            let output = device.device_output().ok_or_else(elsewhere)?;
            match scorer {
                Some(scorer) => {
                    let excluded = segment.exclusions(excluded, segment.deleted().cloned());
                    output.scan_to_buffers(&context, scorer, queries, k, &excluded)
                }
                None => approximate(&context, (&snapshot, output), (algorithm, k), queries, excluded),
            }
        })?;
        Ok(GpuAnswer { hits, snapshot })
    }
}

/// The best `k` of the candidates that `algorithm` finds in the one segment of `snapshot`.
fn approximate(
    context: &SearchContext,
    (snapshot, output): (&Snapshot, &dyn DeviceOutput),
    (algorithm, k): (Algorithm, usize),
    queries: GpuQueries,
    excluded: &[&[u64]],
) -> Result<GpuHits> {
    let segment = &snapshot.segments()[0];
    let batch = output.queries_on_host(context, queries)?;
    if let GpuQueries::Device { .. } = queries {
        snapshot.check_queries(&batch)?;
    }
    let prepared = batch.prepared();
    let everywhere = snapshot.exclude(excluded, None);
    let stage = FirstStage::new(context, snapshot, &prepared, &everywhere)?;
    let retrieval = stage.retrieval(algorithm, 1)?;
    // The longest list of a scan is the least that a query finds.
    let found = retrieval.scans.iter().map(CandidateScan::per_vector).max().unwrap_or(0);
    let candidates = found.min(retrieval.distilled.unwrap_or(found));
    if candidates < k.min(snapshot.len()) {
        let expected = format!("one with {k} candidates or more, for as many results that stay on the GPU");
        return Err(Error::argument(Parameter::Algorithm, expected, format!("`{algorithm}`")));
    }
    let probes = segment.probes_of(&retrieval);
    let excluded = segment.exclusions(excluded, segment.deleted().cloned());
    output.retrieve_to_buffers(context, &retrieval, &probes, &prepared, k, &excluded)
}
