//! Query vectors, prepared for the number format of a table.

use crate::backend::cpu::dot::micro_kernel::RowBlocks;
use crate::backend::cpu::dot::quantized::QuantizedQueries;
use crate::backend::cpu::small_batch::SmallBatchF32;
use crate::tables::{Dtype, Table};

/// Query vectors as rows.
pub enum Queries {
    /// For tables of floats: a query is one row. Small batches are multiplied by the second form, if there is one.
    Floats(RowBlocks, Option<SmallBatchF32>),
    /// For 8-bit tables: each vector of a query is a row.
    Integers(QuantizedQueries),
}

impl Queries {
    /// `rows` row-major rows of `width` values, for `items`.
    pub fn new(items: &Table, values: &[f32], rows: usize, width: usize) -> Queries {
        match items.dtype() {
            Dtype::I8 => Queries::Integers(QuantizedQueries::from_rows(values, items.group_width())),
            Dtype::F32 | Dtype::F16 => {
                let rows = RowBlocks::from_rows(values, rows, width);
                let small_batch = SmallBatchF32::new(&rows, items);
                Queries::Floats(rows, small_batch)
            }
        }
    }
}
