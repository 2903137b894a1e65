//! `few_rows.rs` for machines whose blocks of items are not turned in registers.

use std::ops::Range;

use super::tile::RowBlocks;
use crate::tables::Table;

/// There are none: lanes do their work.
pub enum FewRows {}

impl FewRows {
    /// None.
    pub fn new(_: &RowBlocks, _: &Table) -> Option<FewRows> {
        None
    }

    /// Nothing to multiply.
    pub fn multiply<K>(&self, _: &Table, _: Range<usize>, _: Range<usize>, _: &mut K) {
        match *self {}
    }
}
