//! An item index on the CPU.

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
                let scan = DotScan { queries: rows, n_queries, items: &self.embeddings };
                Ok(scan_all(&scan, self.n_items, n_queries, k, excluded))
            }
            (Scorer::Mol, Some(tables)) => {
                let embeddings = CpuOps.floats(&queries.embeddings);
                let (components, gates) = tables.weights.query_side(&mut CpuOps, &embeddings, &queries.user_ids);
                let config = &tables.weights.config;
                let (p_q, d_p) = (config.query_dot_product_groups, config.dot_product_dimension);
                let query = |(i, components): (usize, &[f32])| Query {
                    components: RowBlocks::from_rows(components, p_q, d_p),
                    gate: gates.as_ref().map(|gates| gates[i * config.n_logits()..][..config.n_logits()].to_vec()),
                };
                let scan = MolScan {
                    kernel: &tables.kernel,
                    queries: components.chunks_exact(p_q * d_p).enumerate().map(query).collect(),
                    components: &tables.components,
                    gate: tables.gate.as_ref(),
                };
                Ok(scan_all(&scan, self.n_items, n_queries, k, excluded))
            }
        }
    }

    fn bytes(&self) -> u64 {
        let mol = self.mol.as_ref();
        let mol = mol.map_or(0, |mol| mol.components.bytes() + mol.gate.as_ref().map_or(0, Table::bytes));
        self.embeddings.bytes() + mol
    }
}
