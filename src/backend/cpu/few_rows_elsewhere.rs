//! `few_rows.rs` for machines whose blocks of items are not turned in registers.

use std::ops::Range;

use super::aligned::AlignedFloats;
use super::tile::RowBlocks;
use crate::tables::Table;

/// Does nothing, and says so: lanes do.
pub fn few_rows<K>(
    _: &RowBlocks,
    _: &Table,
    _: Range<usize>,
    _: Range<usize>,
    _: &mut AlignedFloats,
    _: &mut K,
) -> bool {
    false
}
