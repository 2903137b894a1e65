//! Where the items of an index come from: chunks, so that more of them can be indexed than fit into memory as f32.

mod file;
mod npy;
mod random;
mod runs;

pub(super) use runs::{Run, Runs};

use super::item_embeddings;
use crate::Result;
use crate::model::Model;
use crate::tensor::Tensor;

/// Items of a chunk that is made rather than given.
const CHUNK: usize = 1 << 16;

/// Some items.
#[derive(Clone, Debug)]
pub struct Items {
    /// (n): ids, in any order.
    pub ids: Vec<u64>,
    /// (n, D): their raw embeddings.
    pub embeddings: Tensor,
}

/// Items, a chunk at a time, in any order; each id once.
pub struct ItemSource<'a> {
    len: usize,
    chunks: Box<dyn Iterator<Item = Result<Items>> + 'a>,
}

impl<'a> ItemSource<'a> {
    /// `len` items in `chunks`.
    pub fn new(len: usize, chunks: impl Iterator<Item = Result<Items>> + 'a) -> ItemSource<'a> {
        ItemSource { len, chunks: Box::new(chunks) }
    }

    /// Items `ids` with their raw embeddings (N, D).
    pub fn of_embeddings(ids: Vec<u64>, embeddings: Tensor) -> ItemSource<'a> {
        ItemSource::new(ids.len(), std::iter::once(Ok(Items { ids, embeddings })))
    }

    /// Rows `ids` of the model's own item table.
    pub fn of_model(model: &'a Model, ids: &'a [u32]) -> ItemSource<'a> {
        let chunk = |ids: &[u32]| {
            let embeddings = item_embeddings(model, ids)?;
            Ok(Items { ids: ids.iter().map(|&id| id.into()).collect(), embeddings })
        };
        ItemSource::new(ids.len(), ids.chunks(CHUNK).map(chunk))
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The same, with every embedding divided by its l2 norm, clamped from below at `eps`: what a model with `item_l2_norm`
    /// expects.
    pub fn normalised(self, eps: f32) -> ItemSource<'a> {
        let normalised = move |items: Result<Items>| {
            items.map(|Items { ids, embeddings }| Items { ids, embeddings: super::l2_normalised(&embeddings, eps) })
        };
        ItemSource::new(self.len, self.chunks.map(normalised))
    }

    /// The same; `seen` is called with the number of items of each chunk.
    pub fn inspect(self, mut seen: impl FnMut(usize) + 'a) -> ItemSource<'a> {
        let count = move |items: &Result<Items>| {
            if let Ok(items) = items {
                seen(items.ids.len());
            }
        };
        ItemSource::new(self.len, self.chunks.inspect(count))
    }
}
