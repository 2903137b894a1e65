//! A Mixture-of-Logits similarity on the device: the weights of the query side and of the gates, and the shader variants of
//! its scorers.

use std::ops::Range;

use super::gate::GateWeights;
use super::item_table::ItemLayout;
use super::plan::TILE;
use super::query_side::{QuerySide, rows_of};
use super::sections::REGISTER_LOGITS;
use super::transform::Transform;
use super::variant::{Score, ShaderVariant, Target};
use crate::Result;
use crate::backend::gpu::device::{Buffer, Gpu};
use crate::backend::gpu::kernels::Recorder;
use crate::backend::{DeviceKind, PreparedQueries, Scorer, Similarity, check};
use crate::config::MolConfig;
use crate::model::{CrossGate, Mol};
use crate::tables::Form;
use crate::tensor::Tensor;

/// Bytes of a query side, or of what it is computed from, up to which it is kept for the whole search. That of a larger batch is
/// computed for each slice of each scan.
const KEPT_BYTES: usize = 64 << 20;

/// The similarity.
#[derive(Debug)]
pub(crate) struct GpuMol {
    host: Mol<Tensor>,
    mol: Mol<Buffer>,
    /// For [`Form::Raw`].
    transform: Option<Transform>,
    mixture: (ShaderVariant, GateWeights),
    bound: ShaderVariant,
    distilled: Option<(ShaderVariant, GateWeights)>,
}

impl GpuMol {
    /// For items in `form`, of width `dim` and packed as `items`; `thread_logits` as [`ScanLimits`](super::plan::ScanLimits) has it.
    ///
    /// # Errors
    /// If it does not fit, or the device fails.
    pub fn new(
        gpu: &Gpu,
        similarity: &Similarity,
        items: &ItemLayout,
        (form, dim): (Form, usize),
        thread_logits: Option<usize>,
    ) -> Result<GpuMol> {
        let mol = &similarity.mol;
        let software = gpu.info().kind == DeviceKind::SoftwareGpu;
        let most_logits = thread_logits.unwrap_or(if software { usize::MAX } else { REGISTER_LOGITS });
        let target = Target {
            software,
            thread_logits: gpu
                .subgroup()
                .filter(|&threads| TILE.is_multiple_of(threads))
                .map_or(usize::MAX, |_| most_logits),
            uniform_bytes: gpu.limits().max_uniform_buffer_binding_size as usize,
            matrices: gpu.matrices(),
        };
        let variant = |score: Score<Tensor>| ShaderVariant::mol(&mol.config, items, (form, dim), score, target);
        let mixture = |cross: &CrossGate<Tensor>| -> Result<(ShaderVariant, GateWeights)> {
            let variant = variant(Score::Mixture(cross));
            let weights = GateWeights::new(gpu, &variant, cross)?;
            Ok((variant, weights))
        };
        let projection = mol.item.as_ref().filter(|_| form == Form::Raw);
        let transform = projection.map(|item| Transform::new(gpu, &mol.config, &item.output)).transpose()?;
        let mut failed = None;
        let uploaded = mol.map(&mut |tensor| {
            gpu.upload(tensor.data()).unwrap_or_else(|error| {
                failed.get_or_insert(error);
                gpu.placeholder().clone()
            })
        });
        match failed {
            Some(error) => Err(error),
            None => Ok(GpuMol {
                host: mol.clone(),
                mol: uploaded,
                transform,
                mixture: mixture(&mol.gate_cross)?,
                bound: variant(Score::Bound),
                distilled: similarity.distilled.as_ref().map(|distilled| mixture(&distilled.cross)).transpose()?,
            }),
        }
    }

    pub fn config(&self) -> &MolConfig {
        &self.mol.config
    }

    pub fn transform(&self) -> Option<&Transform> {
        self.transform.as_ref()
    }

    /// The shader variant and the gate weights of a scorer of mixtures.
    ///
    /// # Errors
    /// If there is no such gate.
    pub fn scorer(&self, scorer: Scorer) -> Result<(&ShaderVariant, &GateWeights)> {
        match scorer {
            Scorer::Bound => Ok((&self.bound, &self.mixture.1)),
            Scorer::Distilled => {
                self.distilled.as_ref().map(|(variant, weights)| (variant, weights)).ok_or_else(check::no_distilled)
            }
            Scorer::Mol | Scorer::Dot | Scorer::MaxSim | Scorer::Centroids => Ok((&self.mixture.0, &self.mixture.1)),
        }
    }

    /// The arrays of the query record of the queries `range`. All of them are computed where the first ones are needed.
    pub fn query_parts(&self, recorder: &mut Recorder, queries: &PreparedQueries, range: Range<usize>) -> Vec<Buffer> {
        let batch = queries.batch();
        let compute = |recorder: &mut Recorder, range: Range<usize>| {
            let width = batch.embeddings.width();
            let raw = recorder.upload(&batch.embeddings.data()[range.start * width..range.end * width]);
            let users = batch.user_ids.as_ref().map(|users| &users[range.clone()]);
            self.query_side(recorder, &raw, range.len(), users)
        };
        if batch.len() > KEPT_BYTES / (4 * self.widest_row()) {
            return compute(recorder, range);
        }
        let form = if self.transform.is_some() { Form::Raw } else { Form::Components };
        let side = QuerySide::of(&recorder.gpu().clone(), &self.host, form, queries);
        let arrays = side.arrays(recorder, |recorder| compute(recorder, 0..batch.len()));
        rows_of(recorder, arrays, batch.len(), &range)
    }

    /// Numbers of a query in the widest of the arrays that are computed for it.
    fn widest_row(&self) -> usize {
        let projection = self.host.query.as_ref();
        let hidden = projection.and_then(|query| query.glu.as_ref()).map_or(0, |(layer, _)| layer.n_out);
        hidden.max(self.mixture.0.queries.quads() * 4).max(projection.map_or(0, |query| query.output.n_in))
    }

    /// The arrays of the query record, of `n_queries` raw query embeddings.
    pub fn query_side(
        &self,
        recorder: &mut Recorder,
        raw: &Buffer,
        n_queries: usize,
        user_ids: Option<&[i64]>,
    ) -> Vec<Buffer> {
        let (components, gate) = self.mol.query_side(recorder, raw, n_queries, user_ids);
        let vectors = match &self.transform {
            None => vec![components],
            Some(transform) => {
                transform.all(recorder, &components, n_queries * self.config().query_dot_product_groups).into()
            }
        };
        vectors.into_iter().chain(gate).collect()
    }
}
