//! Whether ids occur once in all of some segments.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Segment;
use crate::error::Parameter;
use crate::{Error, Result};

/// Fails with the first id that two of `segments` can both find. Needs no memory, and no time if their ranges of ids are
/// apart.
pub(super) fn check<'a>(segments: impl Iterator<Item = &'a Segment>) -> Result<()> {
    let mut segments: Vec<&Segment> = segments.filter(|segment| segment.n_live() > 0).collect();
    segments.sort_unstable_by_key(|segment| segment.ids()[0]);
    if segments.windows(2).all(|pair| pair[0].ids()[pair[0].len() - 1] < pair[1].ids()[0]) {
        return Ok(());
    }
    let next = |segment: usize, from: usize| {
        let live = |position: &usize| !segments[segment].deleted().is_some_and(|bits| bits.contains(*position as u32));
        let position = (from..segments[segment].len()).find(live)?;
        Some(Reverse((segments[segment].ids()[position], segment, position)))
    };
    let mut heads: BinaryHeap<_> = (0..segments.len()).filter_map(|segment| next(segment, 0)).collect();
    let mut last = None;
    while let Some(Reverse((id, segment, position))) = heads.pop() {
        if last == Some(id) {
            return Err(twice(id));
        }
        last = Some(id);
        heads.extend(next(segment, position + 1));
    }
    Ok(())
}

/// For an id that occurs again.
pub(super) fn twice(id: u64) -> Error {
    Error::argument(Parameter::ItemIds, "each id once", format!("id {id} twice"))
}
