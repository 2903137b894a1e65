//! Where the work is done: the native CPU backend and the wgpu backend behind one small interface.
//!
//! A backend does two things with a model: it encodes histories ([`QueryEncoder`]) and it scans an item index
//! ([`DeviceIndex`]). Queries and hits cross the border as host values: they are small, and a caller with an encoder
//! of its own can search with its embeddings. What is large (item tables, component logits, scores) stays on the
//! device.

mod check;
pub mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod select;

use crate::Result;
use crate::model::{Encoder, Mol};
use crate::sequence::SequenceBatch;
use crate::tensor::Tensor;

/// What kind of hardware a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// A device in words and numbers.
#[derive(Clone, Debug)]
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

/// Number format of the tables of an index. Accumulation is in f32 always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// 32-bit floats.
    F32,
    /// 16-bit floats: half the memory; values are rounded to 11 significant bits.
    F16,
}

/// Which similarity a scan computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scorer {
    /// Mixture-of-Logits.
    Mol,
    /// Inner product of raw query and item embeddings.
    Dot,
}

/// A batch of queries, as an encoder yields them.
#[derive(Clone, Debug)]
pub struct QueryBatch {
    /// (B, D): raw query embeddings.
    pub embeddings: Tensor,
    /// (B): users, for models with uid embeddings.
    pub user_ids: Vec<i64>,
}

/// Items that each query must not return: sorted, unique positions in the index, one list per query.
#[derive(Clone, Debug, Default)]
pub struct Exclusions {
    /// (B + 1): where each query's list starts in `positions`; empty if nothing is excluded at all.
    pub offsets: Vec<u32>,
    /// All lists, one after the other.
    pub positions: Vec<u32>,
}

impl Exclusions {
    /// The excluded positions of one query.
    pub fn of(&self, query: usize) -> &[u32] {
        match self.offsets.get(query..query + 2) {
            Some(range) => &self.positions[range[0] as usize..range[1] as usize],
            None => &[],
        }
    }
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

    /// Moves an encoder onto the device.
    ///
    /// # Errors
    /// If it does not fit, or the device fails.
    fn encoder(&self, encoder: &Encoder<Tensor>) -> Result<Box<dyn QueryEncoder>>;

    /// Computes the item side of `embeddings` (N, D) and keeps it on the device: the raw embeddings for
    /// [`Scorer::Dot`] and, if `mol` is given, component embeddings and item gate part for [`Scorer::Mol`].
    ///
    /// # Errors
    /// If it does not fit, or the device fails.
    fn index(&self, embeddings: &Tensor, mol: Option<&Mol<Tensor>>, dtype: Dtype) -> Result<Box<dyn DeviceIndex>>;
}

/// An encoder on a device.
pub trait QueryEncoder: Send + Sync {
    /// (B, D): query embeddings of the packed histories.
    ///
    /// # Errors
    /// If the device fails.
    fn encode(&self, batch: &SequenceBatch) -> Result<Tensor>;
}

/// An item index on a device.
pub trait DeviceIndex: Send + Sync {
    /// Scores every (query, item) pair and returns, per query, the best `k` items that are not excluded, by score
    /// descending, then position ascending; fewer than `k` where fewer are left. 1 <= k <= N.
    ///
    /// # Errors
    /// If the device fails, or has no [`Scorer::Mol`] tables.
    fn scan(
        &self,
        scorer: Scorer,
        queries: &QueryBatch,
        k: usize,
        excluded: &Exclusions,
    ) -> Result<Vec<Vec<ScoredPosition>>>;

    /// For each of the `vectors` (V, W) the best `k` items by inner product with their component embeddings, ordered as
    /// by [`DeviceIndex::scan`]: with component `group` m (W = D_P), or with all of them side by side
    /// (W = P_X * D_P). `excluded` has one list per vector.
    ///
    /// # Errors
    /// As [`DeviceIndex::scan`].
    fn scan_components(
        &self,
        vectors: &Tensor,
        group: Option<usize>,
        k: usize,
        excluded: &Exclusions,
    ) -> Result<Vec<Vec<ScoredPosition>>>;

    /// The Mixture-of-Logits scores of some items for each query: one list of positions, and of scores, per query.
    ///
    /// # Errors
    /// As [`DeviceIndex::scan`], or if a position is not in the index.
    fn rescore(&self, queries: &QueryBatch, candidates: &[Vec<u32>]) -> Result<Vec<Vec<f32>>>;

    /// Bytes that the tables take on the device.
    fn bytes(&self) -> u64;
}
