//! A random sample of the items, kept on the host: what an algorithm learns about a query before it scans everything.

use std::sync::Arc;

use crate::Result;
use crate::backend::cpu::CpuIndex;
use crate::backend::{Bits, Similarity};
use crate::tables::{Dtype, Tables};
use crate::tensor::Tensor;

/// Some items with the item side of their similarity, f32.
pub struct Sample {
    index: CpuIndex,
    tables: Arc<Tables>,
}

impl Sample {
    /// Most items of a sample.
    pub const MOST: usize = 8192;

    /// Draws from the items of some tables, but for those that are deleted, in random order; always the same ones for the same
    /// tables. `None` if there is no item.
    ///
    /// # Errors
    /// If the tables do not suit the similarity.
    pub(crate) fn draw(parts: &[(&Tables, Option<&Bits>)], similarity: &Similarity) -> Result<Option<Sample>> {
        let Some((first, _)) = parts.first() else { return Ok(None) };
        let n: usize = parts.iter().map(|(tables, _)| tables.len()).sum();
        let dim = first.raw.width();
        let mut tables = Tables::new(dim, Some(&similarity.mol), Dtype::F32, first.form())?;
        let mut ends: Vec<usize> = Vec::with_capacity(parts.len());
        parts.iter().for_each(|(tables, _)| ends.push(ends.last().unwrap_or(&0) + tables.len()));
        for row in drawn(n) {
            let part = ends.partition_point(|&end| end <= row);
            let (from, deleted) = parts[part];
            let position = row + from.len() - ends[part];
            if !deleted.is_some_and(|deleted| deleted.contains(position as u32)) {
                tables.append_row_of(from, position);
            }
        }
        let tables = Arc::new(tables);
        let index = CpuIndex::new(tables.clone(), Some(similarity));
        Ok((!tables.is_empty()).then_some(Sample { index, tables }))
    }

    /// The items of the sample, in random order: the first ones of them are a sample, too.
    pub fn index(&self) -> &CpuIndex {
        &self.index
    }

    /// (S, D): raw embeddings.
    pub fn raw(&self) -> Tensor {
        let raw = &self.tables.raw;
        Tensor::trusted(vec![self.len(), raw.width()], raw.read_rows(0..self.len()))
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.tables.len()
    }

    /// Whether there is no item; never true.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }
}

/// Up to [`Sample::MOST`] different numbers below `n`, by a seeded partial Fisher-Yates shuffle.
fn drawn(n: usize) -> Vec<usize> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut moved = std::collections::HashMap::new();
    let draw = |i: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let other = i + ((u128::from(state) * (n - i) as u128) >> 64) as usize;
        let taken = moved.get(&other).copied().unwrap_or(other);
        let own = moved.get(&i).copied().unwrap_or(i);
        moved.insert(other, own);
        taken
    };
    (0..n.min(Sample::MOST)).map(draw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_different_spread_out_and_repeatable() {
        for n in [1, 5, Sample::MOST, Sample::MOST + 1, 1_000_000] {
            let rows = drawn(n);
            assert_eq!(rows.len(), n.min(Sample::MOST));
            let different: std::collections::BTreeSet<&usize> = rows.iter().collect();
            assert!(different.len() == rows.len() && rows.iter().all(|&row| row < n), "n = {n}");
            assert_eq!(rows, drawn(n));
        }
        let in_last_quarter = drawn(1_000_000).iter().filter(|&&row| row >= 750_000).count();
        assert!(
            (Sample::MOST / 5..Sample::MOST * 3 / 10).contains(&in_last_quarter),
            "{in_last_quarter} of {} in the last quarter",
            Sample::MOST
        );
    }
}
