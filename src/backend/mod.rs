//! Where the work is done: the native CPU backend and the wgpu backend behind one small interface.
//!
//! A backend encodes histories ([`QueryEncoder`]) or pools token states ([`Backend::pool`]), and it scans an item index
//! ([`DeviceIndex`]). Queries and hits cross the border as host values: they are small, and a caller with an encoder
//! of its own can search with its embeddings. What is large (item tables, component logits, scores) stays on the
//! device.

mod check;
pub mod cpu;
#[cfg(feature = "gpu")]
mod device_output;
mod exclusions;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod loss;
mod order_key;
mod prepared_queries;
mod query_batch;
mod retrieval;
pub mod select;
mod training;
mod training_device;

pub(crate) use check::{mol_queries, no_distilled};
#[cfg(feature = "gpu")]
pub use device_output::{DeviceOutput, GpuHits, GpuQueries};
pub use exclusions::{Bits, Exclusions};
pub use prepared_queries::PreparedQueries;
pub use query_batch::QueryBatch;
pub use retrieval::{CandidateScan, Probes, Retrieval, Retrieved, ScoredCandidates};
pub(crate) use training::AdamWFactors;
pub use training::{AdamW, MolArrays, MolLossSettings, MolSide, Trainable, TrainingOps};
pub use training_device::{TrainingDevice, WithTrainingOps};

use std::sync::Arc;

pub use crate::context::SearchContext;
pub use crate::tables::{Columns, Dtype};

use crate::Result;
use crate::error::Parameter;
use crate::model::{Distilled, Encoder, Mol, TokenPooling};
use crate::names::names;
use crate::sequence::SequenceBatch;
use crate::tables::{ItemSide, Tables};
use crate::tensor::Tensor;
use crate::token_embeddings::TokenEmbeddings;

/// What kind of hardware a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceKind {
    /// The native CPU backend of this crate.
    Cpu,
    /// A GPU with memory of its own.
    DiscreteGpu,
    /// A GPU that shares the processor's memory.
    IntegratedGpu,
    /// A GPU inside a virtual machine.
    VirtualGpu,
    /// A graphics driver that runs on the processor (lavapipe, WARP, SwiftShader): for tests, 20 to 100 times
    /// slower than the native CPU backend.
    SoftwareGpu,
    /// Unknown.
    Other,
}

names!(DeviceKind, Parameter::DeviceKind, {
    Cpu: "native CPU",
    DiscreteGpu: "discrete GPU",
    IntegratedGpu: "integrated GPU",
    VirtualGpu: "virtual GPU",
    SoftwareGpu: "software GPU",
    Other: "unknown",
});

/// A device in words and numbers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// Name, as the driver gives it.
    pub name: String,
    /// Kind of hardware.
    pub kind: DeviceKind,
    /// `native`, `vulkan`, `metal` or `dx12`.
    pub backend: String,
    /// Driver name and version; the instruction set for the CPU backend.
    pub driver: String,
    /// Features that matter to this crate and that the device has.
    pub features: Vec<String>,
    /// Limits that matter to this crate, by name, in bytes or counts.
    pub limits: Vec<(&'static str, u64)>,
}

/// Which similarity a scan computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scorer {
    /// Mixture-of-Logits.
    Mol,
    /// Inner product of raw query and item embeddings; with 8-bit tables of the query rounded as [`Dtype::I8`] says.
    Dot,
    /// Late interaction (ColBERT, arXiv 2004.12832, equation 3): for each token embedding of the query the greatest inner product
    /// with one of the item's, summed. With 8-bit tables the query is rounded as [`Dtype::I8`] says.
    MaxSim,
    /// The same with centroids in place of the item's token embeddings that they are nearest to (PLAID, arXiv 2205.09707, section
    /// 3); of tables without centroids, and on a GPU, [`Scorer::MaxSim`].
    Centroids,
    /// Mixture-of-Logits with the distilled cross gate, if the similarity has one.
    Distilled,
    /// The largest component logit of a pair, plus what rounding may add: no Mixture-of-Logits score is greater.
    Bound,
}

/// A Mixture-of-Logits similarity as an index uses it.
#[derive(Clone, Debug)]
pub struct Similarity {
    /// The model's.
    pub mol: Mol<Tensor>,
    /// Cheaper stand-ins for parts of it, if the index has learned from queries.
    pub distilled: Option<Distilled>,
}

/// One item found: its position in the index and its score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoredPosition {
    /// Position in the index; ids ascend with positions.
    pub position: u32,
    /// Similarity to the query.
    pub score: f32,
}

/// A device that can encode and scan.
pub trait Backend: Send + Sync {
    /// What it is.
    fn info(&self) -> &DeviceInfo;

    /// Another handle of the same device.
    fn share(&self) -> Arc<dyn Backend>;

    /// Moves an encoder onto the device.
    ///
    /// # Errors
    /// If it does not fit, or the device fails.
    fn encoder(&self, encoder: &Encoder<Tensor>) -> Result<Box<dyn QueryEncoder>>;

    /// The item side of `items` (n, D), computed on the device, on the host.
    ///
    /// # Errors
    /// If the device fails.
    fn item_side(&self, mol: &Mol<Tensor>, items: &Tensor) -> Result<ItemSide>;

    /// (N, P, D_P): the component embeddings of N texts, computed on the device, on the host.
    ///
    /// # Errors
    /// As [`TokenPooling::pool`].
    fn pool(&self, pooling: &TokenPooling, texts: &TokenEmbeddings) -> Result<Tensor>;

    /// Whether indexes on the device have [`DeviceIndex::retrieve`] and [`DeviceIndex::retrieve_candidates`].
    fn retrieves(&self) -> bool {
        false
    }

    /// Makes tables searchable on the device, for [`Scorer::Mol`] by `similarity` if they have been made for one.
    ///
    /// # Errors
    /// If they do not fit, or the device fails.
    fn load(
        &self,
        context: &SearchContext,
        tables: Arc<Tables>,
        similarity: Option<&Similarity>,
    ) -> Result<Box<dyn DeviceIndex>>;
}

/// An encoder on a device.
pub trait QueryEncoder: Send + Sync {
    /// (B, D): query embeddings of the packed histories.
    ///
    /// # Errors
    /// If the device fails.
    fn encode(&self, batch: &SequenceBatch) -> Result<Tensor> {
        self.encode_with(&SearchContext::default(), batch)
    }

    /// [`QueryEncoder::encode`] as a part of something that may be cancelled, or is measured.
    ///
    /// # Errors
    /// As there, or if it was cancelled.
    fn encode_with(&self, context: &SearchContext, batch: &SequenceBatch) -> Result<Tensor>;
}

/// An item index on a device.
pub trait DeviceIndex: Send + Sync {
    /// Scores every (query, item) pair and returns, per query, the best `k` items that are not excluded, by score
    /// descending, then position ascending; fewer than `k` where fewer are left. 1 <= k <= N.
    ///
    /// # Errors
    /// If the device fails, or has no tables or weights for the scorer.
    fn scan(
        &self,
        context: &SearchContext,
        scorer: Scorer,
        queries: &PreparedQueries,
        k: usize,
        excluded: &Exclusions,
    ) -> Result<Hits>;

    /// [`DeviceIndex::scan`] for [`Scorer::Mol`] that leaves out the gate of pairs whose largest logit shows that they
    /// cannot be among the best: the same hits, and the number of pairs left out.
    ///
    /// # Errors
    /// As [`DeviceIndex::scan`].
    fn scan_pruned(
        &self,
        context: &SearchContext,
        queries: &PreparedQueries,
        k: usize,
        excluded: &Exclusions,
    ) -> Result<(Hits, u64)>;

    /// For each of the `vectors` (V, W) the best `k` items by inner product with these columns of their tables, ordered
    /// as by [`DeviceIndex::scan`]. `excluded` has one list per vector.
    ///
    /// # Errors
    /// As [`DeviceIndex::scan`].
    fn scan_components(
        &self,
        context: &SearchContext,
        vectors: &Tensor,
        columns: Columns,
        k: usize,
        excluded: &Exclusions,
    ) -> Result<Hits>;

    /// [`DeviceIndex::scan_components`] within the inverted lists number `lists` of the tables only, and of those only the
    /// lists that `probes` names for each vector.
    ///
    /// # Errors
    /// As [`DeviceIndex::scan`], or if there are no such lists.
    fn scan_lists(
        &self,
        context: &SearchContext,
        lists: usize,
        vectors: &Tensor,
        probes: &[Vec<u32>],
        k: usize,
        excluded: &Exclusions,
    ) -> Result<Hits>;

    /// For each of the `vectors` (V, W) all positions, ascending, whose inner product with these columns is at least
    /// the vector's threshold.
    ///
    /// # Errors
    /// As [`DeviceIndex::scan`].
    fn above(
        &self,
        context: &SearchContext,
        vectors: &Tensor,
        columns: Columns,
        thresholds: &[f32],
        excluded: &Exclusions,
    ) -> Result<Vec<Vec<u32>>>;

    /// The scores ([`Scorer::Mol`], [`Scorer::Distilled`], [`Scorer::Bound`] or [`Scorer::MaxSim`]) of some items for each query: one list of
    /// positions, and of scores, per query.
    ///
    /// # Errors
    /// As [`DeviceIndex::scan`], or if a position is not in the index.
    fn rescore(
        &self,
        context: &SearchContext,
        scorer: Scorer,
        queries: &PreparedQueries,
        candidates: &[Vec<u32>],
    ) -> Result<Vec<Vec<f32>>>;

    /// Candidates and their rescoring by the full similarity in one go: the best `k` candidates of each query, without the
    /// candidates leaving the device, unless `keep` asks for them. `probes`: for each scan of the retrieval the inverted lists
    /// that it looks into, where the tables have such. `None` where the device cannot do it so, as for some queries that leave
    /// many more candidates than expected: then the caller goes scan by scan.
    ///
    /// # Errors
    /// As [`DeviceIndex::scan`].
    fn retrieve(
        &self,
        _context: &SearchContext,
        _retrieval: &Retrieval,
        _probes: &[Option<Probes>],
        _queries: &PreparedQueries,
        (_k, _keep): (usize, bool),
        _excluded: &Exclusions,
    ) -> Result<Option<Vec<Retrieved>>> {
        Ok(None)
    }

    /// [`DeviceIndex::retrieve`] for an index of several segments, of which this is one: which of the candidates here are among
    /// those of the whole index their scores will tell.
    ///
    /// # Errors
    /// As there.
    fn retrieve_candidates(
        &self,
        _context: &SearchContext,
        _retrieval: &Retrieval,
        _probes: &[Option<Probes>],
        _queries: &PreparedQueries,
        _excluded: &Exclusions,
    ) -> Result<Option<Vec<ScoredCandidates>>> {
        Ok(None)
    }

    /// Scans whose results stay on the device, where programs can go on with them there; `None` where they cannot.
    #[cfg(feature = "gpu")]
    fn device_output(&self) -> Option<&dyn DeviceOutput> {
        None
    }

    /// Bytes that the tables take on the device.
    fn bytes(&self) -> u64;
}

/// One list of items per query, best first.
pub type Hits = Vec<Vec<ScoredPosition>>;
