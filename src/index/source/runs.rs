//! Items of a source, gathered into runs that each become a segment.

use super::{ItemSource, Items};
use crate::Result;
use crate::index::{check_items, sorted, twice};
use crate::model::InputRange;

/// Items of one segment, ids ascending.
pub(in crate::index) struct Run {
    pub ids: Vec<u64>,
    /// (n, D)
    pub rows: Vec<f32>,
}

/// Runs of `size` items, the last one shorter.
pub(in crate::index) struct Runs<'a> {
    source: ItemSource<'a>,
    range: &'a InputRange,
    size: usize,
    /// What is left of the last chunk, and from which row on.
    rest: Option<(Items, usize)>,
}

impl<'a> Runs<'a> {
    /// Of items that have to be in `range`.
    pub fn new(source: ItemSource<'a>, range: &'a InputRange, size: usize) -> Runs<'a> {
        Runs { source, range, size: size.max(1), rest: None }
    }

    fn gather(&mut self) -> Result<Option<Run>> {
        let (dim, room) = (self.range.dim(), self.size.min(self.source.len));
        let (mut ids, mut rows) = (Vec::with_capacity(room), Vec::with_capacity(room * dim));
        while ids.len() < self.size {
            let (items, from) = match self.rest.take() {
                Some(rest) => rest,
                None => match self.source.chunks.next() {
                    None => break,
                    Some(items) => {
                        let items = items?;
                        check_items(&items.ids, &items.embeddings, self.range)?;
                        (items, 0)
                    }
                },
            };
            let to = items.ids.len().min(from + self.size - ids.len());
            ids.extend_from_slice(&items.ids[from..to]);
            rows.extend_from_slice(&items.embeddings.data()[from * dim..to * dim]);
            if to < items.ids.len() {
                self.rest = Some((items, to));
            }
        }
        let (ids, rows) = match ids.is_sorted() {
            true => (ids, rows),
            false => {
                let (ids, rows) = sorted(&ids, &rows, dim);
                (ids, rows.into_owned())
            }
        };
        match ids.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(twice(pair[0])),
            None => Ok((!ids.is_empty()).then_some(Run { ids, rows })),
        }
    }
}

impl Iterator for Runs<'_> {
    type Item = Result<Run>;

    /// An error is one of the source; or a chunk has an id twice, a value that is not finite or too large, or rows of another width.
    fn next(&mut self) -> Option<Result<Run>> {
        self.gather().transpose()
    }
}
