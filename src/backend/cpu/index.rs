//! An item index on the CPU.

use rayon::prelude::*;

use super::dot_scan::DotScan;
use super::mol_scan::{MolKernel, MolScan, Query};
use super::table::Table;
use super::tile::{RowBlocks, TILE};
use super::workers::scan_all;
use super::{CpuOps, Shared};
use crate::Result;
use crate::backend::check;
use crate::backend::{DeviceIndex, Dtype, Exclusions, QueryBatch, ScoredPosition, Scorer};
use crate::model::Mol;
use crate::ops::Ops;
use crate::tensor::Tensor;

/// Packed tables and, for Mixture-of-Logits, the weights of the query side and of the gate.
pub struct CpuIndex {
    n_items: usize,
    dim: usize,
    embeddings: Table,
    mol: Option<MolTables>,
}

struct MolTables {
    weights: Mol<Shared>,
    kernel: MolKernel,
    components: Table,
    gate: Option<Table>,
}

impl MolTables {
    fn query_side(&self, queries: &QueryBatch) -> (Shared, Option<Shared>) {
        self.weights.query_side(&mut CpuOps, &CpuOps.floats(&queries.embeddings), &queries.user_ids)
    }

    /// A scan of these tables for `queries`.
    fn scan(&self, queries: &QueryBatch) -> MolScan<'_> {
        let (components, gates) = self.query_side(queries);
        let config = &self.weights.config;
        let (p_q, d_p) = (config.query_dot_product_groups, config.dot_product_dimension);
        let query = |(i, components): (usize, &[f32])| Query {
            components: RowBlocks::from_rows(components, p_q, d_p),
            gate: gates.as_ref().map(|gates| gates[i * config.n_logits()..][..config.n_logits()].to_vec()),
        };
        MolScan {
            kernel: &self.kernel,
            queries: components.chunks_exact(p_q * d_p).enumerate().map(query).collect(),
            components: &self.components,
            gate: self.gate.as_ref(),
        }
    }
}

impl CpuIndex {
    /// Computes the item side in chunks and packs it.
    ///
    /// # Errors
    /// If there is no item, a value is not finite, or `mol` expects another width.
    pub fn build(embeddings: &Tensor, mol: Option<&Mol<Tensor>>, dtype: Dtype) -> Result<CpuIndex> {
        check::items(embeddings, mol)?;
        // Bounds the memory of row-major intermediates; a multiple of the tile, so that tiles are filled.
        const CHUNK: usize = 128 * TILE;
        let (n_items, dim) = (embeddings.rows(), embeddings.width());
        let mut raw = Table::new(dim, dtype);
        let mut mol = mol.map(|mol| {
            let config = &mol.config;
            MolTables {
                weights: mol.map(&mut |tensor| CpuOps.floats(tensor)),
                kernel: MolKernel::new(mol),
                components: Table::new(config.item_dot_product_groups * config.dot_product_dimension, dtype),
                gate: mol.gate_item.is_some().then(|| Table::new(config.n_logits(), dtype)),
            }
        });
        for first in (0..n_items).step_by(CHUNK) {
            let n = CHUNK.min(n_items - first);
            let rows = &embeddings.data()[first * dim..(first + n) * dim];
            raw.append(rows, n);
            if let Some(tables) = &mut mol {
                let rows = Shared::new(rows.to_vec());
                let (components, gate) = tables.weights.item_side(&mut CpuOps, &rows, n);
                tables.components.append(&components, n);
                if let (Some(table), Some(gate)) = (&mut tables.gate, gate) {
                    table.append(&gate, n);
                }
            }
        }
        Ok(CpuIndex { n_items, dim, embeddings: raw, mol })
    }
}

impl DeviceIndex for CpuIndex {
    fn scan(
        &self,
        scorer: Scorer,
        queries: &QueryBatch,
        k: usize,
        excluded: &Exclusions,
    ) -> Result<Vec<Vec<ScoredPosition>>> {
        check::scan((self.n_items, self.dim, self.mol.is_some()), scorer, queries, k, excluded)?;
        let n_queries = queries.embeddings.rows();
        match (scorer, &self.mol) {
            (Scorer::Dot, _) | (_, None) => {
                let rows = RowBlocks::from_rows(queries.embeddings.data(), n_queries, self.dim);
                let scan = DotScan { queries: rows, n_queries, items: &self.embeddings, first_column: 0 };
                Ok(scan_all(&scan, self.n_items, n_queries, k, excluded))
            }
            (Scorer::Mol, Some(tables)) => {
                let scan = tables.scan(queries);
                Ok(scan_all(&scan, self.n_items, n_queries, k, excluded))
            }
        }
    }

    fn scan_components(
        &self,
        vectors: &Tensor,
        group: Option<usize>,
        k: usize,
        excluded: &Exclusions,
    ) -> Result<Vec<Vec<ScoredPosition>>> {
        let shape = self
            .mol
            .as_ref()
            .map(|tables| (tables.weights.config.item_dot_product_groups, tables.weights.config.dot_product_dimension));
        check::components(self.n_items, shape, vectors, group, k, excluded)?;
        let (n_queries, width) = (vectors.rows(), vectors.width());
        let Some(tables) = &self.mol else { return Ok(Vec::new()) };
        let scan = DotScan {
            queries: RowBlocks::from_rows(vectors.data(), n_queries, width),
            n_queries,
            items: &tables.components,
            first_column: group.map_or(0, |group| group * width),
        };
        Ok(scan_all(&scan, self.n_items, n_queries, k, excluded))
    }

    fn rescore(&self, queries: &QueryBatch, candidates: &[Vec<u32>]) -> Result<Vec<Vec<f32>>> {
        check::mol_queries(self.dim, self.mol.is_some(), queries)?;
        check::candidates(self.n_items, queries.embeddings.rows(), candidates)?;
        let Some(tables) = &self.mol else { return Ok(Vec::new()) };
        let scan = tables.scan(queries);
        Ok(candidates.par_iter().enumerate().map(|(query, positions)| scan.rescore(query, positions)).collect())
    }

    fn bytes(&self) -> u64 {
        let mol = self.mol.as_ref();
        let mol = mol.map_or(0, |mol| mol.components.bytes() + mol.gate.as_ref().map_or(0, Table::bytes));
        self.embeddings.bytes() + mol
    }
}
