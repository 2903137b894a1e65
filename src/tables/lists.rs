//! Inverted lists: items clustered by some columns of their tables, each cluster's vectors side by side.

use super::{Columns, Table, Tables};
use crate::tensor::Tensor;

/// Clusters of items. A copy of the vectors lies in the order of the lists, so that a list is scanned as a small table.
#[derive(Debug)]
pub struct Lists {
    /// What the items are clustered by.
    pub columns: Columns,
    /// (nlist, W): the centre of each list.
    pub centroids: Tensor,
    /// (nlist + 1): where each list starts.
    pub offsets: Vec<u32>,
    /// (N): positions of the items, ascending within each list.
    pub positions: Vec<u32>,
    /// (N, W): their vectors, in the same order.
    pub vectors: Table,
}

impl Lists {
    /// Sorts the items of `tables` into the lists that `assigned` (N) names.
    pub fn new(columns: Columns, centroids: Tensor, assigned: &[u32], tables: &Tables) -> Lists {
        let n_lists = centroids.rows();
        let mut offsets = vec![0u32; n_lists + 1];
        assigned.iter().for_each(|&list| offsets[list as usize + 1] += 1);
        (0..n_lists).for_each(|list| offsets[list + 1] += offsets[list]);
        let mut next = offsets.clone();
        let mut positions = vec![0; assigned.len()];
        for (position, &list) in assigned.iter().enumerate() {
            positions[next[list as usize] as usize] = position as u32;
            next[list as usize] += 1;
        }
        let (groups, width) = match columns {
            Columns::All => (centroids.width() / tables.component_width().max(1), tables.component_width()),
            Columns::Group(_) | Columns::Mean | Columns::Principal => (1, centroids.width()),
        };
        let mut vectors = Table::new(groups, width, tables.dtype());
        let mut row = vec![0.0; centroids.width()];
        for &position in &positions {
            tables.read_columns(columns, position as usize, &mut row);
            vectors.append(&row);
        }
        Lists { columns, centroids, offsets, positions, vectors }
    }

    /// Rows of list `list`.
    pub fn list(&self, list: u32) -> std::ops::Range<usize> {
        self.offsets[list as usize] as usize..self.offsets[list as usize + 1] as usize
    }

    /// For each of the `vectors` (V, W) the `n_probe` lists with the greatest inner products of vector and centre.
    pub fn probes(&self, vectors: &Tensor, n_probe: usize) -> Vec<Vec<u32>> {
        let n_lists = self.centroids.rows();
        let nearest = |vector: &[f32]| {
            let dot = |list: usize| self.centroids.row(list).iter().zip(vector).map(|(a, b)| a * b).sum::<f32>();
            let mut lists: Vec<(f32, u32)> = (0..n_lists).map(|list| (dot(list), list as u32)).collect();
            lists.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            lists.into_iter().take(n_probe).map(|(_, list)| list).collect()
        };
        vectors.data().chunks_exact(vectors.width().max(1)).map(nearest).collect()
    }

    /// Rows of all lists that some of the `probes` name.
    pub fn n_probed(&self, probes: &[Vec<u32>]) -> usize {
        let mut lists = probes.concat();
        lists.sort_unstable();
        lists.dedup();
        lists.into_iter().map(|list| self.list(list).len()).sum()
    }

    /// Bytes of vectors, positions and centres.
    pub fn bytes(&self) -> u64 {
        let small = size_of_val(self.positions.as_slice()) + size_of_val(self.centroids.data());
        self.vectors.bytes() + small as u64
    }
}
