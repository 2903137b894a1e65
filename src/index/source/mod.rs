//! Where the items of an index come from: chunks, so that more of them can be indexed than fit into memory as f32.

mod file;
mod npy;
mod random;
mod runs;
mod tokens;

pub(super) use runs::{Run, Runs};

use std::borrow::Cow;
use std::sync::Arc;

use super::model_items::{item_embeddings, l2_normalised};
use super::string_ids::ids_of_strings;
use super::unique::twice;
use crate::attributes::Attributes;
use crate::backend::Backend;
use crate::error::Parameter;
use crate::model::{InputRange, Model, TokenPooling};
use crate::tensor::Tensor;
use crate::token_embeddings::TokenEmbeddings;
use crate::{Error, Result};

/// Items of a chunk that is made rather than given.
const CHUNK: usize = 1 << 16;

/// Some items.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Items {
    /// (n): ids, in any order.
    pub ids: Vec<u64>,
    /// (n, D): their raw embeddings, the mean of its token embeddings where an item has such; or (n, P_X, D_P): their components, where
    /// the similarity has no projections.
    pub embeddings: Tensor,
    /// Their token embeddings, for late interaction.
    pub token_embeddings: Option<TokenEmbeddings>,
}

impl Items {
    /// Items `ids` (n) with their raw embeddings (n, D).
    pub fn new(ids: Vec<u64>, embeddings: Tensor) -> Items {
        Items { ids, embeddings, token_embeddings: None }
    }

    /// Items `ids` (n) with their token embeddings.
    pub fn of_tokens(ids: Vec<u64>, token_embeddings: TokenEmbeddings) -> Items {
        Items { ids, embeddings: token_embeddings.means(), token_embeddings: Some(token_embeddings) }
    }

    /// Whether these can be items: ids without duplicates, one per row; rows in `range`.
    pub(super) fn check(&self, range: &InputRange) -> Result<()> {
        let Items { ids, embeddings, token_embeddings } = self;
        let n_items = embeddings.rows();
        if ids.len() != n_items {
            return Err(Error::argument(Parameter::ItemIds, format!("{n_items}, one per embedding"), ids.len()));
        }
        if let Some(tokens) = token_embeddings.as_ref().filter(|tokens| tokens.len() != n_items) {
            return Err(Error::argument(Parameter::TokenLengths, format!("{n_items}, one per item"), tokens.len()));
        }
        let mut unique = ids.clone();
        unique.sort_unstable();
        if let Some(pair) = unique.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(twice(pair[0]));
        }
        range.check_items(ids, embeddings, token_embeddings.as_ref())
    }
}

/// Items, a chunk at a time.
type Chunks<'a> = Box<dyn Iterator<Item = Result<Items>> + 'a>;

/// Items, a chunk at a time, in any order; each id once.
pub struct ItemSource<'a> {
    len: usize,
    /// The first chunk, if it was looked at.
    first: Option<Items>,
    /// String ids (N), if the items have some.
    strings: Option<Vec<String>>,
    /// Their attributes, if they have some.
    attributes: Option<Box<Attributes>>,
    chunks: Chunks<'a>,
}

impl<'a> ItemSource<'a> {
    /// `len` items in `chunks`.
    pub fn new(len: usize, chunks: impl Iterator<Item = Result<Items>> + 'a) -> ItemSource<'a> {
        ItemSource { len, first: None, strings: None, attributes: None, chunks: Box::new(chunks) }
    }

    /// The same items with these attributes, found by their ids; none of other items. An item that `attributes` says nothing of has
    /// none: a [`Condition`](crate::Condition) sees `NULL`.
    #[must_use]
    pub fn with_attributes(self, attributes: impl Into<Option<Attributes>>) -> ItemSource<'a> {
        ItemSource { attributes: attributes.into().map(Box::new), ..self }
    }

    /// The same items with these string ids (N), in their order, instead of the numbers that they have.
    ///
    /// # Errors
    /// If there is not one id per item, or an id is empty, given twice, or has the number of another one
    /// ([`id_of_string`](super::id_of_string)).
    pub fn with_string_ids(self, strings: Vec<String>) -> Result<ItemSource<'a>> {
        if strings.len() != self.len {
            return Err(Error::argument(Parameter::ItemIds, format!("{}, one per item", self.len), strings.len()));
        }
        let numbers = ids_of_strings(&strings)?;
        let (len, mut at) = (self.len, 0);
        let numbered = move |items: Result<Items>| {
            let items = items?;
            let to = at + items.ids.len();
            let more = || Error::argument(Parameter::ItemIds, format!("{len}, as the source says"), "more");
            let ids = numbers.get(at..to).ok_or_else(more)?.to_vec();
            at = to;
            Ok(Items { ids, ..items })
        };
        let source = self.each(|chunks| Box::new(chunks.map(numbered)));
        Ok(ItemSource { strings: Some(strings), ..source })
    }

    /// Whether ids are strings.
    pub fn has_string_ids(&self) -> bool {
        self.strings.is_some()
    }

    /// Items with string ids and the rows of an array of `shape` (N, D), as [`ItemSource::of_rows`].
    ///
    /// # Errors
    /// As there, or if an id is empty, or has the number of another one ([`id_of_string`](super::id_of_string)).
    pub fn of_string_rows(
        strings: Vec<String>,
        shape: [usize; 2],
        read: impl FnMut(&[usize]) -> Result<Tensor> + 'a,
    ) -> Result<ItemSource<'a>> {
        let ids = ids_of_strings(&strings)?;
        let mut numbered: Vec<(u64, String)> = ids.iter().copied().zip(strings).collect();
        numbered.sort_unstable();
        let strings = numbered.into_iter().map(|(_, string)| string).collect();
        ItemSource::rows_by_id(ids.into(), shape, read)?.with_string_ids(strings)
    }

    /// Items `ids` with their raw embeddings (N, D).
    pub fn of_embeddings(ids: Vec<u64>, embeddings: Tensor) -> ItemSource<'a> {
        ItemSource::new(ids.len(), std::iter::once(Ok(Items::new(ids, embeddings))))
    }

    /// Items `ids` (N) with their token embeddings, for late interaction.
    ///
    /// # Errors
    /// If there is not one id per item, or an id is given twice.
    pub fn of_token_embeddings(ids: &'a [u64], token_embeddings: &'a TokenEmbeddings) -> Result<ItemSource<'a>> {
        // Numbers of a chunk.
        const NUMBERS: usize = 4 << 20;
        let n_items = token_embeddings.len();
        let order = ascending(ids, n_items)?;
        let mut from = 0;
        let chunks = std::iter::from_fn(move || {
            let (mut to, mut numbers) = (from, 0);
            while to < n_items && (to == from || numbers < NUMBERS) {
                numbers += token_embeddings.range(order[to]).len() * token_embeddings.dim();
                to += 1;
            }
            let rows = &order[from..to];
            from = to;
            let chunk = || Items::of_tokens(rows.iter().map(|&row| ids[row]).collect(), token_embeddings.select(rows));
            (!rows.is_empty()).then(|| Ok(chunk()))
        });
        Ok(ItemSource::new(n_items, chunks))
    }

    /// Items `ids` (N) with the rows of an array of `shape` (N, D), wherever it lies. `read` copies some rows, by their
    /// numbers, into a tensor (n, D): it is called for a few MiB at a time, in the order of ids.
    ///
    /// # Errors
    /// If there is not one id per row, or an id is given twice.
    pub fn of_rows(
        ids: &'a [u64],
        shape: [usize; 2],
        read: impl FnMut(&[usize]) -> Result<Tensor> + 'a,
    ) -> Result<ItemSource<'a>> {
        ItemSource::rows_by_id(ids.into(), shape, read)
    }

    fn rows_by_id(
        ids: Cow<'a, [u64]>,
        shape: [usize; 2],
        mut read: impl FnMut(&[usize]) -> Result<Tensor> + 'a,
    ) -> Result<ItemSource<'a>> {
        // Numbers of a chunk; and rows, of which the tables are filled with so many at a time.
        const NUMBERS: usize = 4 << 20;
        const ROWS: usize = 4096;
        let [n_rows, dim] = shape;
        let order = ascending(&ids, n_rows)?;
        let per_chunk = (NUMBERS / dim.max(1)).next_multiple_of(ROWS);
        let mut rest = order.into_iter();
        let chunks = std::iter::from_fn(move || {
            let rows: Vec<usize> = rest.by_ref().take(per_chunk).collect();
            let chunk = || Ok(Items::new(rows.iter().map(|&row| ids[row]).collect(), read(&rows)?));
            (!rows.is_empty()).then(chunk)
        });
        Ok(ItemSource::new(n_rows, chunks))
    }

    /// Rows `ids` of the model's own item table.
    pub fn of_model(model: &'a Model, ids: &'a [u32]) -> ItemSource<'a> {
        let chunk = |ids: &[u32]| {
            let embeddings = item_embeddings(model, ids)?;
            Ok(Items::new(ids.iter().map(|&id| id.into()).collect(), embeddings))
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
        let width = |items: &Items| match &items.token_embeddings {
            Some(tokens) => tokens.dim(),
            None => items.embeddings.width(),
        };
        Ok(self.first()?.map_or(0, width))
    }

    /// Whether the items have token embeddings; no if there is no item.
    ///
    /// # Errors
    /// If the first chunk cannot be had.
    pub(crate) fn has_token_embeddings(&mut self) -> Result<bool> {
        Ok(self.first()?.is_some_and(|items| items.token_embeddings.is_some()))
    }

    fn first(&mut self) -> Result<Option<&Items>> {
        self.first = self.next_chunk()?;
        Ok(self.first.as_ref())
    }

    /// P_X and D_P, if the items are component embeddings (N, P_X, D_P).
    ///
    /// # Errors
    /// If the first chunk cannot be had.
    pub fn component_shape(&mut self) -> Result<Option<[usize; 2]>> {
        Ok(self.first()?.and_then(|items| items.embeddings.shape().get(1..)?.try_into().ok()))
    }

    fn next_chunk(&mut self) -> Result<Option<Items>> {
        self.first.take().map_or_else(|| self.chunks.next().transpose(), |first| Ok(Some(first)))
    }

    /// The items, a chunk at a time.
    pub fn into_chunks(self) -> impl Iterator<Item = Result<Items>> + 'a {
        self.first.map(Ok).into_iter().chain(self.chunks)
    }

    /// The same items, after something was done to their chunks.
    fn each(self, change: impl FnOnce(Chunks<'a>) -> Chunks<'a>) -> ItemSource<'a> {
        let first = self.first.map(Ok).into_iter();
        ItemSource { first: None, chunks: change(Box::new(first.chain(self.chunks))), ..self }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The same, with every embedding divided by its l2 norm, clamped from below at `eps`: what a model with `item_l2_norm`
    /// expects. Items with token embeddings are refused.
    pub fn normalised(self, eps: f32) -> ItemSource<'a> {
        let normalised = move |items: Result<Items>| match items? {
            Items { token_embeddings: Some(tokens), .. } => {
                let expected = "items of one embedding each, to be normalised (normalise token embeddings beforehand)";
                Err(Error::argument(
                    Parameter::TokenEmbeddings,
                    expected,
                    format!("{} items with several", tokens.len()),
                ))
            }
            items => Ok(Items { embeddings: l2_normalised(&items.embeddings, eps), ..items }),
        };
        self.each(|chunks| Box::new(chunks.map(normalised)))
    }

    /// The same items by the components that `pooling` makes of their token embeddings on `backend`, for a similarity of given components.
    pub fn pooled(self, backend: Arc<dyn Backend>, pooling: TokenPooling) -> ItemSource<'a> {
        let pooled = move |items: Result<Items>| {
            let Items { ids, token_embeddings, .. } = items?;
            let missing = || Error::argument(Parameter::TokenEmbeddings, "token embeddings, to be pooled", "none");
            Ok(Items::new(ids, backend.pool(&pooling, &token_embeddings.ok_or_else(missing)?)?))
        };
        self.each(|chunks| Box::new(chunks.map(pooled)))
    }

    /// The same; `seen` is called with the number of items of each chunk.
    pub fn inspect(self, mut seen: impl FnMut(usize) + 'a) -> ItemSource<'a> {
        let count = move |items: &Result<Items>| {
            if let Ok(items) = items {
                seen(items.ids.len());
            }
        };
        self.each(|chunks| Box::new(chunks.inspect(count)))
    }
}

/// The rows of items `ids` (N), one per item, in the order of ids.
///
/// # Errors
/// If there is not one id per item, or an id is given twice.
fn ascending(ids: &[u64], n_items: usize) -> Result<Vec<usize>> {
    if ids.len() != n_items {
        return Err(Error::argument(Parameter::ItemIds, format!("{n_items}, one per embedding"), ids.len()));
    }
    let mut order: Vec<usize> = (0..n_items).collect();
    if !ids.is_sorted() {
        order.sort_unstable_by_key(|&row| ids[row]);
    }
    match order.windows(2).find(|pair| ids[pair[0]] == ids[pair[1]]) {
        Some(pair) => Err(twice(ids[pair[0]])),
        None => Ok(order),
    }
}
