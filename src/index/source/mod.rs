//! Where the items of an index come from: chunks, so that more of them can be indexed than fit into memory as f32.

mod file;
mod npy;
mod random;
mod runs;

pub(super) use runs::Runs;

use super::{item_embeddings, twice};
use crate::error::Parameter;
use crate::model::Model;
use crate::tensor::Tensor;
use crate::{Error, Result};

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
    /// The first chunk, if it was looked at.
    first: Option<Items>,
    chunks: Box<dyn Iterator<Item = Result<Items>> + 'a>,
}

impl<'a> ItemSource<'a> {
    /// `len` items in `chunks`.
    pub fn new(len: usize, chunks: impl Iterator<Item = Result<Items>> + 'a) -> ItemSource<'a> {
        ItemSource { len, first: None, chunks: Box::new(chunks) }
    }

    /// Items `ids` with their raw embeddings (N, D).
    pub fn of_embeddings(ids: Vec<u64>, embeddings: Tensor) -> ItemSource<'a> {
        ItemSource::new(ids.len(), std::iter::once(Ok(Items { ids, embeddings })))
    }

    /// Items `ids` (N) with the rows of an array of `shape` (N, D), wherever it lies. `read` copies some rows, by their
    /// numbers, into a tensor (n, D): it is called for a few MiB at a time, in the order of ids.
    ///
    /// # Errors
    /// If there is not one id per row, or an id is given twice.
    pub fn of_rows(
        ids: &'a [u64],
        shape: [usize; 2],
        mut read: impl FnMut(&[usize]) -> Result<Tensor> + 'a,
    ) -> Result<ItemSource<'a>> {
        // Numbers of a chunk; and rows, of which the tables are filled with so many at a time.
        const NUMBERS: usize = 4 << 20;
        const ROWS: usize = 4096;
        let [n_rows, dim] = shape;
        if ids.len() != n_rows {
            return Err(Error::argument(Parameter::ItemIds, format!("{n_rows}, one per embedding"), ids.len()));
        }
        let mut order: Vec<usize> = (0..n_rows).collect();
        if !ids.is_sorted() {
            order.sort_unstable_by_key(|&row| ids[row]);
        }
        if let Some(pair) = order.windows(2).find(|pair| ids[pair[0]] == ids[pair[1]]) {
            return Err(twice(ids[pair[0]]));
        }
        let per_chunk = (NUMBERS / dim.max(1)).next_multiple_of(ROWS);
        let mut rest = order.into_iter();
        let chunks = std::iter::from_fn(move || {
            let rows: Vec<usize> = rest.by_ref().take(per_chunk).collect();
            let chunk = || Ok(Items { embeddings: read(&rows)?, ids: rows.iter().map(|&row| ids[row]).collect() });
            (!rows.is_empty()).then(chunk)
        });
        Ok(ItemSource::new(n_rows, chunks))
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

    /// D; 0 if there is no item.
    ///
    /// # Errors
    /// If the first chunk cannot be had.
    pub(crate) fn dim(&mut self) -> Result<usize> {
        self.first = self.next_chunk()?;
        Ok(self.first.as_ref().map_or(0, |items| items.embeddings.width()))
    }

    fn next_chunk(&mut self) -> Result<Option<Items>> {
        self.first.take().map_or_else(|| self.chunks.next().transpose(), |first| Ok(Some(first)))
    }

    fn into_chunks(self) -> impl Iterator<Item = Result<Items>> + 'a {
        self.first.map(Ok).into_iter().chain(self.chunks)
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
        ItemSource::new(self.len, self.into_chunks().map(normalised))
    }

    /// The same; `seen` is called with the number of items of each chunk.
    pub fn inspect(self, mut seen: impl FnMut(usize) + 'a) -> ItemSource<'a> {
        let count = move |items: &Result<Items>| {
            if let Ok(items) = items {
                seen(items.ids.len());
            }
        };
        ItemSource::new(self.len, self.into_chunks().inspect(count))
    }
}
