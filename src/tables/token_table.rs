//! The token embeddings of items: a varying number of vectors each.

use std::ops::Range;

use super::table::Table;
use super::token_codes::TokenCodes;
use super::values::{Bytes, Dtype};

/// All vectors of some items, those of an item one after the other.
pub struct TokenTable {
    vectors: Table,
    /// (N + 1): row of the first vector of each item, and the end.
    offsets: Bytes<u64>,
    /// What centroid interaction needs, if it has been made.
    pub codes: Option<TokenCodes>,
}

impl std::fmt::Debug for TokenTable {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{:?} of {} items", self.vectors, self.len())
    }
}

impl TokenTable {
    /// An empty table for vectors of width `dim`.
    pub fn new(dim: usize, dtype: Dtype) -> TokenTable {
        TokenTable { vectors: Table::new(1, dim, dtype), offsets: Bytes::Owned(vec![0].into()), codes: None }
    }

    /// Of `vectors` (T, D) and `offsets` (N + 1); `None` if these do not ascend strictly from 0 to T.
    pub fn from_parts(vectors: Table, offsets: Bytes<u64>) -> Option<TokenTable> {
        let ends = offsets.as_slice();
        let fits = ends.first() == Some(&0) && ends.last() == Some(&(vectors.rows() as u64));
        (fits && ends.is_sorted_by(|a, b| a < b)).then_some(TokenTable { vectors, offsets, codes: None })
    }

    /// Appends one item with these vectors (n, D), n >= 1.
    pub fn append(&mut self, vectors: &[f32]) {
        self.vectors.append(vectors);
        self.end_item();
    }

    /// Copies the item at `position` of a table of the same width and format.
    pub fn append_item_of(&mut self, other: &TokenTable, position: usize) {
        other.rows_of(position).for_each(|row| self.vectors.append_row_of(&other.vectors, row));
        self.end_item();
    }

    fn end_item(&mut self) {
        self.offsets.extend([self.vectors.rows() as u64].into_iter());
    }

    /// Moves the items: item `i` becomes what item `order[i]` was. Codes are made afterwards.
    pub fn reorder(&mut self, order: &[usize]) {
        let mut ordered = TokenTable::new(self.vectors.width(), self.vectors.dtype());
        ordered.vectors.reserve(self.vectors.rows());
        order.iter().for_each(|&position| ordered.append_item_of(self, position));
        *self = ordered;
    }

    /// (T, D): one group of D numbers a row.
    pub fn vectors(&self) -> &Table {
        &self.vectors
    }

    /// (N + 1)
    pub fn offsets(&self) -> &[u64] {
        self.offsets.as_slice()
    }

    /// The rows of the item at `position`.
    #[inline]
    pub fn rows_of(&self, position: usize) -> Range<usize> {
        let offsets = self.offsets();
        offsets[position] as usize..offsets[position + 1] as usize
    }

    /// N: number of items.
    pub fn len(&self) -> usize {
        self.offsets().len() - 1
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all of it.
    pub fn bytes(&self) -> u64 {
        let codes = self.codes.as_ref().map_or(0, TokenCodes::bytes);
        self.vectors.bytes() + size_of_val(self.offsets()) as u64 + codes
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn items_keep_their_vectors_when_they_move() {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::I8] {
            let mut table = TokenTable::new(2, dtype);
            for n in [2, 1, 3] {
                table.append(&(0..2 * n).map(|i| (n * 10 + i) as f32).collect::<Vec<f32>>());
            }
            let before: Vec<Vec<f32>> = (0..3).map(|item| table.vectors().read_rows(table.rows_of(item))).collect();
            table.reorder(&[2, 0, 1]);
            assert_eq!(table.offsets(), [0, 3, 5, 6]);
            for (item, old) in [2, 0, 1].into_iter().enumerate() {
                assert_eq!(table.vectors().read_rows(table.rows_of(item)), before[old], "{dtype}");
            }
        }
    }

    #[test]
    fn offsets_that_do_not_divide_the_vectors_are_refused() {
        let parts = |offsets: Vec<u64>| {
            let mut vectors = Table::new(1, 2, Dtype::F32);
            vectors.append(&[0.0; 6]);
            TokenTable::from_parts(vectors, Bytes::Owned(offsets.into()))
        };
        assert_eq!(parts(vec![0, 1, 3]).unwrap().rows_of(1), 1..3);
        for wrong in [vec![], vec![0], vec![0, 2], vec![0, 4], vec![1, 3], vec![0, 2, 2, 3], vec![0, 2, 1, 3]] {
            assert!(parts(wrong).is_none());
        }
    }
}
