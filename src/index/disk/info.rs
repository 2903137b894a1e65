//! What an index folder holds, in numbers.

use serde::Serialize;

use super::Folder;
use crate::Result;
use crate::attributes::Column;

/// An index folder in numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct IndexInfo {
    /// Number of the version.
    pub generation: u64,
    /// Items that can be found.
    pub items: usize,
    /// Items that were removed or replaced and are still in the files.
    pub deleted: usize,
    /// D: width of raw or token embeddings.
    pub dim: usize,
    /// `f32`, `f16` or `int8`.
    pub dtype: &'static str,
    /// `components` or `raw`.
    pub form: &'static str,
    /// The similarity in words.
    pub similarity: String,
    /// Whether items have several vectors each, token embeddings.
    pub token_embeddings: bool,
    /// Whether queries can be made from histories without a checkpoint.
    pub encoder: bool,
    /// Whether there is a distilled gate.
    pub distilled: bool,
    /// Names and types of the attributes of items.
    pub attributes: Vec<Column>,
    /// Bytes of all files.
    pub bytes: u64,
    /// The segments.
    pub segments: Vec<SegmentInfo>,
}

/// A segment in numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SegmentInfo {
    /// Its file.
    pub file: String,
    /// Items in it, deleted ones included.
    pub items: usize,
    /// Items of it that cannot be found any more.
    pub deleted: usize,
    /// Sets of inverted lists.
    pub lists: usize,
    /// Bytes of its file.
    pub bytes: u64,
}

impl IndexInfo {
    pub(super) fn new(folder: &Folder) -> Result<IndexInfo> {
        let content = folder.content();
        let segment = |entry: &super::SegmentEntry| {
            let shard = folder.store().shard(&entry.file)?;
            let deleted = match &entry.deleted {
                Some(file) => super::deletions::read(folder.store().shard(file)?, entry.items)?.count(),
                None => 0,
            };
            let lists = shard.tensors().filter(|name| name.ends_with(".centroids")).count();
            Ok(SegmentInfo { file: entry.file.clone(), items: entry.items, deleted, lists, bytes: shard.bytes() })
        };
        let segments = content.segments.iter().map(segment).collect::<Result<Vec<_>>>()?;
        let (all, deleted): (usize, usize) =
            segments.iter().fold((0, 0), |sum, segment| (sum.0 + segment.items, sum.1 + segment.deleted));
        let blueprint = folder.blueprint()?;
        let similarity = blueprint.similarity.as_ref().map(|similarity| &similarity.mol.config);
        let words = if content.token_embeddings { "MaxSim" } else { "dot product" };
        let similarity = similarity.map_or(words.to_string(), |mol| {
            let (p_q, p_x) = (mol.query_dot_product_groups, mol.item_dot_product_groups);
            format!("MoL {p_q}x{p_x}x{}", mol.dot_product_dimension)
        });
        Ok(IndexInfo {
            generation: folder.generation(),
            items: all - deleted,
            deleted,
            dim: content.dim,
            dtype: content.dtype.name(),
            form: content.form.name(),
            similarity,
            token_embeddings: content.token_embeddings,
            encoder: folder.has_encoder(),
            distilled: content.distilled.is_some(),
            attributes: content.attributes.clone(),
            bytes: folder.store().shards().map(crate::store::Shard::bytes).sum(),
            segments,
        })
    }
}
