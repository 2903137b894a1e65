//! First stages: a cheap scan of the component tables that leaves few candidates for the full similarity
//! (arXiv 2407.15462, section 4).

use crate::backend::cpu::CpuOps;
use crate::backend::{Exclusions, QueryBatch};
use crate::index::ItemIndex;
use crate::model::Mol;
use crate::ops::Ops;
use crate::tensor::Tensor;
use crate::{Error, Result};

use super::{Algorithm, tangent};

/// The query side of a batch, on the host.
pub(super) struct QuerySide {
    /// (B, P_Q * D_P): component embeddings.
    pub components: Tensor,
    /// (B, L): query-only gate part, if there is one.
    pub gate: Option<Tensor>,
}

impl QuerySide {
    fn new(mol: &Mol<Tensor>, queries: &QueryBatch) -> QuerySide {
        let weights = mol.map(&mut |tensor| CpuOps.floats(tensor));
        let embeddings = CpuOps.floats(&queries.embeddings);
        let (components, gate) = weights.query_side(&mut CpuOps, &embeddings, &queries.user_ids);
        let n = queries.user_ids.len();
        let matrix = |values: &[f32]| Tensor::new(vec![n, values.len() / n.max(1)], values.to_vec());
        QuerySide { components: matrix(&components), gate: gate.map(|gate| matrix(&gate)) }
    }
}

/// Positions of the candidates of each query, ascending, each once. At least `k`, as far as so many items are left: where
/// the algorithm's own number of candidates does not suffice, it is doubled until it does.
pub(super) fn collect(
    index: &ItemIndex,
    mol: &Mol<Tensor>,
    algorithm: Algorithm,
    queries: &QueryBatch,
    k: usize,
    excluded: &Exclusions,
) -> Result<Vec<Vec<u32>>> {
    let width = queries.embeddings.width();
    if queries.user_ids.len() != queries.embeddings.rows() || width != mol.item_dim() {
        let expected = format!("shape (B, {}) with B user ids", mol.item_dim());
        let found = format!("{:?} with {} user ids", queries.embeddings.shape(), queries.user_ids.len());
        return Err(Error::argument("query embeddings", expected, found));
    }
    let side = QuerySide::new(mol, queries);
    let n_items = index.len();
    let stage = FirstStage { index, mol, side: &side, excluded };
    let mut scale = 1;
    loop {
        let scaled = |n: usize| n.saturating_mul(scale).min(n_items);
        let mut lists = vec![Vec::new(); queries.user_ids.len()];
        match algorithm {
            Algorithm::Naive { per_group } => stage.naive(scaled(per_group), &mut lists)?,
            Algorithm::Avg { candidates } => stage.avg(scaled(candidates), &mut lists)?,
            Algorithm::Comb { per_group, candidates } => {
                stage.naive(scaled(per_group), &mut lists)?;
                stage.avg(scaled(candidates), &mut lists)?;
            }
            Algorithm::Tangent { candidates } => {
                let vectors = tangent::vectors(index, mol, &side, queries)?;
                stage.best(&vectors, None, scaled(candidates), 1, &mut lists)?;
            }
            Algorithm::Exact | Algorithm::Mips => {
                return Err(Error::argument("algorithm", "one that collects candidates", format!("`{algorithm}`")));
            }
        }
        for list in &mut lists {
            list.sort_unstable();
            list.dedup();
        }
        let enough = |(query, list): (usize, &Vec<u32>)| list.len() >= k.min(n_items - excluded.of(query).len());
        if lists.iter().enumerate().all(enough) {
            return Ok(lists);
        }
        scale *= 2;
    }
}

struct FirstStage<'a> {
    index: &'a ItemIndex,
    mol: &'a Mol<Tensor>,
    side: &'a QuerySide,
    excluded: &'a Exclusions,
}

impl FirstStage<'_> {
    /// The best `n` by each pair of components.
    fn naive(&self, n: usize, lists: &mut [Vec<u32>]) -> Result<()> {
        let (p_q, d_p) = (self.mol.config.query_dot_product_groups, self.mol.config.dot_product_dimension);
        let vectors = Tensor::new(vec![lists.len() * p_q, d_p], self.side.components.data().to_vec());
        (0..self.mol.config.item_dot_product_groups).try_for_each(|m| self.best(&vectors, Some(m), n, p_q, lists))
    }

    /// The best `n` by (sum_n f_n) . (mean_m g_m).
    fn avg(&self, n: usize, lists: &mut [Vec<u32>]) -> Result<()> {
        let (p_x, d_p) = (self.mol.config.item_dot_product_groups, self.mol.config.dot_product_dimension);
        let mut data = Vec::with_capacity(lists.len() * p_x * d_p);
        for components in self.side.components.data().chunks_exact(self.side.components.width().max(1)) {
            let mut sum = vec![0.0; d_p];
            for component in components.chunks_exact(d_p) {
                sum.iter_mut().zip(component).for_each(|(sum, value)| *sum += value / p_x as f32);
            }
            (0..p_x).for_each(|_| data.extend_from_slice(&sum));
        }
        self.best(&Tensor::new(vec![lists.len(), p_x * d_p], data), None, n, 1, lists)
    }

    /// Adds to each query's list the best `n` by each of its `per_query` vectors.
    fn best(
        &self,
        vectors: &Tensor,
        group: Option<usize>,
        n: usize,
        per_query: usize,
        lists: &mut [Vec<u32>],
    ) -> Result<()> {
        let mut excluded = Exclusions::default();
        if !self.excluded.offsets.is_empty() {
            excluded.offsets.push(0);
            for vector in 0..vectors.rows() {
                excluded.positions.extend_from_slice(self.excluded.of(vector / per_query));
                excluded.offsets.push(excluded.positions.len() as u32);
            }
        }
        let found = self.index.device().scan_components(vectors, group, n, &excluded)?;
        for (vector, hits) in found.into_iter().enumerate() {
            lists[vector / per_query].extend(hits.iter().map(|hit| hit.position));
        }
        Ok(())
    }
}
