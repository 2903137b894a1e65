//! Query vectors in the form in which a table multiplies them.

use crate::backend::cpu::dot::micro_kernel::RowBlocks;
use crate::backend::cpu::dot::quantized::FixedRows;
use crate::backend::cpu::small_batch::FewRows;
use crate::tables::{Dtype, Table};

/// Query vectors as rows, for the number format of a table.
pub enum Queries {
    /// For floats: all groups of a query are one row, once more for items as they lie in memory if there are few.
    Floats(RowBlocks, Option<FewRows>),
    /// For 8-bit integers: each group is a row.
    Integers(FixedRows),
}

impl Queries {
    /// `rows` row-major rows of `width` values, for `items`.
    pub fn new(items: &Table, values: &[f32], rows: usize, width: usize) -> Queries {
        match items.dtype() {
            Dtype::I8 => Queries::Integers(FixedRows::from_rows(values, items.group_width())),
            Dtype::F32 | Dtype::F16 => {
                let rows = RowBlocks::from_rows(values, rows, width);
                let few = FewRows::new(&rows, items);
                Queries::Floats(rows, few)
            }
        }
    }
}
