//! Results that stay on the GPU, for programs that go on with them there.

use std::sync::Arc;

use super::{Algorithm, Searcher};
use crate::backend::{GpuHits, GpuQueries, Scorer, SearchContext};
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
    /// [`Searcher::search`] whose result stays on the GPU: nothing is read back, and nothing is waited for. With
    /// [`GpuQueries::Device`] the queries need not leave it either. Commands that the caller submits to the same queue find
    /// the result complete.
    ///
    /// The index must lie as one segment on one GPU, as it does when it was built on one and holds no more than
    /// [`IndexOptions::segment_items`](crate::index::IndexOptions::segment_items); the algorithm must be [`Algorithm::Exact`],
    /// [`Algorithm::ExactPruned`] (then the same as exact) or [`Algorithm::Mips`].
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
        let scorer = match (algorithm, snapshot.similarity()) {
            (Algorithm::Mips, _) | (Algorithm::Exact | Algorithm::ExactPruned, None) => Scorer::Dot,
            (Algorithm::Exact | Algorithm::ExactPruned, Some(_)) => Scorer::Mol,
            _ => {
                let expected = "`exact` or `mips` for results that stay on the GPU";
                return Err(Error::argument(Parameter::Algorithm, expected, format!("`{algorithm}`")));
            }
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
        let excluded = segment.exclusions(excluded, segment.deleted().cloned());
        let context = SearchContext::default();
        let hits = segment.on_device(&context, |device| match device.device_output() {
            Some(output) => output.scan_to_buffers(&context, scorer, queries, k, &excluded),
            None => {
                Err(Error::argument(Parameter::Index, expected, format!("one on `{}`", segment.backend().info().name)))
            }
        })?;
        Ok(GpuAnswer { hits, snapshot })
    }
}
