//! Leaves out tiles none of whose items can be among the best of a single query.
//!
//! Scores have defined bits: sums in the order of columns, which takes items turned into lanes, or integers of 16 bits. Whether a
//! score can be of use at all is found out sooner, by sums in any order, of numbers rounded to what is multiplied fastest, and by a
//! bound of their error. Only tiles that may hold something are scored; results do not change.

use std::ops::Range;

use super::prefilter_float::FloatSieve;
use super::prefilter_i8::IntegerSieve;
use crate::backend::cpu::simd::avx2;
use crate::tables::{Dtype, Table, Values};

/// Items that make a sieve worth while: until a few thousand are scored, nothing is known that would let it leave out any.
const LEAST_ITEMS: usize = 1 << 14;

/// A sieve for one query.
pub struct Sieve(Kind);

enum Kind {
    Floats(FloatSieve),
    Integers(IntegerSieve),
}

impl Sieve {
    /// For the inner products of the vectors `groups` of the items of `table` with a query of these `values`, if they are those of
    /// a single query, if there are many items, and if the machine and the numbers allow it.
    pub fn new(values: &[f32], table: &Table, groups: Range<usize>) -> Option<Sieve> {
        let simd = avx2()?;
        if values.len() != groups.len() * table.group_width() || table.rows() < LEAST_ITEMS {
            return None;
        }
        Some(Sieve(match table.dtype() {
            Dtype::F32 | Dtype::F16 => Kind::Floats(FloatSieve::new(simd, values, table, groups)?),
            Dtype::I8 => Kind::Integers(IntegerSieve::new(simd, values, table, groups)?),
        }))
    }

    /// Which of at most 32 `tiles`, all of them whole, may hold a score of `floor` or more, in bits.
    pub fn passing(&self, table: &Table, tiles: Range<usize>, floor: f32) -> u32 {
        match (&self.0, table.values()) {
            (Kind::Floats(sieve), Values::F32(values)) => sieve.passing(table, values.as_slice(), tiles, floor),
            (Kind::Floats(sieve), Values::F16(values)) => sieve.passing(table, values.as_slice(), tiles, floor),
            (Kind::Integers(sieve), Values::I8(values)) => sieve.passing(table, values.as_slice(), tiles, floor),
            _ => u32::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn there_is_one_for_a_single_query_and_many_items() {
        let can = avx2().is_some();
        for dtype in [Dtype::F32, Dtype::F16, Dtype::I8] {
            let mut table = Table::new(2, 16, dtype);
            table.append(&vec![1.0; (LEAST_ITEMS - 1) * 32]);
            let some =
                |table: &Table, values: &[f32], groups: Range<usize>| Sieve::new(values, table, groups).is_some();
            assert!(!some(&table, &[1.0; 16], 1..2), "few items");
            table.append(&[1.0; 32]);
            assert_eq!(some(&table, &[1.0; 16], 1..2), can);
            assert!(!some(&table, &[1.0; 32], 1..2), "two queries");
            assert!(!some(&table, &[], 1..2), "none");
            assert_eq!(some(&table, &[1.0; 32], 0..2), can && dtype != Dtype::I8, "of two groups");
        }
    }
}
