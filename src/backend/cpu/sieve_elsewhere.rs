//! `sieve.rs` for machines without sieves.

use std::ops::Range;

use super::dot_scan::Queries;
use crate::tables::Table;

/// There are none: everything is scored.
pub enum Sieve {}

impl Sieve {
    /// None.
    pub fn new(_: &Queries, _: &[f32], _: &Table, _: Range<usize>) -> Option<Sieve> {
        None
    }

    /// Nothing to sieve.
    pub fn passing(&self, _: &Table, _: Range<usize>, _: f32) -> u32 {
        match *self {}
    }
}
