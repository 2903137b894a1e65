//! Items of a source, cut into runs that each become a segment.

use std::collections::VecDeque;
use std::ops::Range;

use super::{ItemSource, Items};
use crate::Result;
use crate::attributes::Column;
use crate::index::attribute_source::AttributeSource;
use crate::model::InputRange;
use crate::token_embeddings::TokenEmbeddings;

/// Runs of items, in the order of the source. They pass through: only chunks that were looked at ahead wait in memory.
pub(in crate::index) struct Runs<'a> {
    source: ItemSource<'a>,
    range: &'a InputRange,
    /// Chunks that are checked and not yet taken, the first one from row `from` on.
    waiting: VecDeque<Items>,
    from: usize,
    taken: usize,
    /// The string ids of all items, if they have some.
    strings: Option<Vec<String>>,
    /// The attributes of the items, if they have some.
    attributes: Option<AttributeSource>,
}

/// Some items on their way.
pub(in crate::index) struct Run<'a> {
    /// (n)
    pub ids: &'a [u64],
    /// (n, D): raw embeddings.
    pub rows: &'a [f32],
    /// Token embeddings, and which of them are these items'.
    pub tokens: Option<(&'a TokenEmbeddings, Range<usize>)>,
}

impl<'a> Runs<'a> {
    /// Of items that have to be in `range`.
    ///
    /// # Errors
    /// As [`AttributeSource::new`].
    pub fn new(mut source: ItemSource<'a>, range: &'a InputRange) -> Result<Runs<'a>> {
        let (strings, attributes) = (source.strings.take(), source.attributes.take());
        let attributes =
            attributes.map(|attributes| AttributeSource::new(*attributes, strings.is_some())).transpose()?;
        Ok(Runs { source, range, waiting: VecDeque::new(), from: 0, taken: 0, strings, attributes })
    }

    /// The attributes of the items, if they have some.
    pub fn attributes(&mut self) -> Option<&mut AttributeSource> {
        self.attributes.as_mut()
    }

    /// Names and types of the attributes; none if the items have none.
    pub fn columns(&self) -> &[Column] {
        self.attributes.as_ref().map_or(&[], AttributeSource::columns)
    }

    /// Whether the attributes were those of items, after all were taken.
    ///
    /// # Errors
    /// If some were not.
    pub fn check_attributes(&self) -> Result<()> {
        self.attributes.as_ref().map_or(Ok(()), AttributeSource::check_used)
    }

    /// The string ids of the next `size` items, or of all that are left, if they have some.
    pub fn next_strings(&self, size: usize) -> Option<Vec<String>> {
        let strings = self.strings.as_ref()?;
        Some(strings[self.taken..strings.len().min(self.taken + size)].to_vec())
    }

    /// How many of the next `size` items there should be.
    pub fn left(&self, size: usize) -> usize {
        size.min(self.source.len.saturating_sub(self.taken))
    }

    /// The raw embeddings of the next `size` items, ids ascending. They stay to be taken.
    ///
    /// # Errors
    /// As [`Runs::take`].
    pub fn look_ahead(&mut self, size: usize) -> Result<Vec<&[f32]>> {
        let mut n = self.waiting.iter().map(|items| items.ids.len()).sum::<usize>() - self.from;
        while n < size && self.wait_for_chunk()? {
            n += self.waiting.back().map_or(0, |items| items.ids.len());
        }
        let (ids, rows) = (self.waiting.iter().flat_map(|items| &items.ids), self.waiting.iter());
        let rows = rows.flat_map(|items| items.embeddings.data().chunks_exact(self.range.item_dim()));
        let mut rows: Vec<(u64, &[f32])> = ids.copied().zip(rows).skip(self.from).take(size).collect();
        rows.sort_unstable_by_key(|(id, _)| *id);
        Ok(rows.into_iter().map(|(_, row)| row).collect())
    }

    /// Passes on the next `size` items, some at a time. Returns how many there were.
    ///
    /// # Errors
    /// Those of the source or of `pass`; or a chunk has an id twice, a value that is not finite or too large, or rows of
    /// another width.
    pub fn take(&mut self, size: usize, mut pass: impl FnMut(Run) -> Result<()>) -> Result<usize> {
        let (dim, mut n) = (self.range.item_dim(), 0);
        while n < size && !self.is_empty()? {
            let items = &self.waiting[0];
            let to = items.ids.len().min(self.from + size - n);
            pass(Run {
                ids: &items.ids[self.from..to],
                rows: &items.embeddings.data()[self.from * dim..to * dim],
                tokens: items.token_embeddings.as_ref().map(|tokens| (tokens, self.from..to)),
            })?;
            n += to - self.from;
            self.from = to;
            if to == items.ids.len() {
                self.waiting.pop_front();
                self.from = 0;
            }
        }
        self.taken += n;
        Ok(n)
    }

    /// Whether all items were taken.
    ///
    /// # Errors
    /// As [`Runs::take`].
    pub fn is_empty(&mut self) -> Result<bool> {
        Ok(self.waiting.is_empty() && !self.wait_for_chunk()?)
    }

    /// Adds the next chunk to those that wait; false if there is none.
    fn wait_for_chunk(&mut self) -> Result<bool> {
        while let Some(items) = self.source.next_chunk()? {
            items.check(self.range)?;
            if !items.ids.is_empty() {
                self.waiting.push_back(items);
                return Ok(true);
            }
        }
        Ok(false)
    }
}
