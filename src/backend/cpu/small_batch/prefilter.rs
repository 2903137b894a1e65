//! Leaves out tiles that hold no score of use, before they are scored.
//!
//! Scores have defined bits: their sums run in the order of columns, which takes items turned into lanes, or integers of 16 bits. That a
//! tile has no score at the threshold (the k-th score so far) is cheaper to show, by sums in any order, of rounded numbers, and a bound of
//! their error. Tiles that pass are scored as ever, so no bit of a result changes.

use std::ops::Range;

use super::prefilter_float::FloatPrefilter;
use super::prefilter_i8::Int8Prefilter;
use super::tile_magnitudes::TileMagnitudes;
use crate::backend::cpu::simd::avx2;
use crate::tables::{Dtype, Table, Values};

/// Fewest items for which a prefilter pays: before some thousands are scored, the threshold is too low to leave out any.
const MIN_ITEMS: usize = 1 << 14;

/// A prefilter for one query and one table.
pub struct Prefilter<'a> {
    table: &'a Table,
    magnitudes: &'a TileMagnitudes,
    kernel: Kernel,
}

enum Kernel {
    Float(FloatPrefilter),
    Int8(Int8Prefilter),
}

impl<'a> Prefilter<'a> {
    /// For the inner products of the vectors `groups` of the items of `table` with a query of these `values`. `None` if the values are not
    /// those of one query, if there are few items, if the machine lacks AVX2, or if the shape or the numbers do not suit the kernel.
    pub fn new(
        values: &[f32],
        table: &'a Table,
        groups: Range<usize>,
        magnitudes: &'a TileMagnitudes,
    ) -> Option<Prefilter<'a>> {
        let simd = avx2()?;
        if values.len() != groups.len() * table.group_width() || table.rows() < MIN_ITEMS {
            return None;
        }
        let kernel = match table.dtype() {
            Dtype::F32 | Dtype::F16 => Kernel::Float(FloatPrefilter::new(simd, values, table, groups)?),
            Dtype::I8 => Kernel::Int8(Int8Prefilter::new(simd, values, table, groups)?),
        };
        Some(Prefilter { table, magnitudes, kernel })
    }

    /// Which of at most 32 `tiles`, all of them whole, may hold a score of `threshold` or more: a bit for each.
    pub fn passing(&self, tiles: Range<usize>, threshold: f32) -> u32 {
        let Prefilter { table, magnitudes, kernel } = self;
        match (kernel, table.values()) {
            (Kernel::Float(kernel), Values::F32(values)) => {
                kernel.passing(table, values.as_slice(), magnitudes, tiles, threshold)
            }
            (Kernel::Float(kernel), Values::F16(values)) => {
                kernel.passing(table, values.as_slice(), magnitudes, tiles, threshold)
            }
            (Kernel::Int8(kernel), Values::I8(values)) => kernel.passing(table, values.as_slice(), tiles, threshold),
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
            table.append(&vec![1.0; (MIN_ITEMS - 1) * 32]);
            let some = |table: &Table, values: &[f32], groups: Range<usize>| {
                Prefilter::new(values, table, groups, &TileMagnitudes::new(0)).is_some()
            };
            assert!(!some(&table, &[1.0; 16], 1..2), "few items");
            table.append(&[1.0; 32]);
            assert_eq!(some(&table, &[1.0; 16], 1..2), can);
            assert!(!some(&table, &[1.0; 32], 1..2), "two queries");
            assert!(!some(&table, &[], 1..2), "none");
            assert_eq!(some(&table, &[1.0; 32], 0..2), can && dtype != Dtype::I8, "of two groups");
        }
    }
}
