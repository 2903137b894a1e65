//! The query side of a batch: what of a score depends on the query alone.

use std::sync::{Arc, OnceLock};

use super::query::MolQuery;
use crate::backend::PreparedQueries;
use crate::backend::cpu::ops::{CpuOps, Shared};
use crate::model::Mol;
use crate::ops::Ops;
use crate::tables::Form;
use crate::tensor::Tensor;

/// Components and gate parts of the queries of a batch, and the same packed for scans.
pub struct QuerySide {
    mol: Mol<Tensor>,
    n_queries: usize,
    /// (B, P_Q * D_P)
    components: Shared,
    /// (B, L), if there is a query-only gate part.
    gates: Option<Shared>,
    for_components: OnceLock<Vec<MolQuery>>,
    for_raw: OnceLock<Vec<MolQuery>>,
}

impl QuerySide {
    /// That of `queries` by `mol`, whose shapes and users have been checked: computed now, unless it was before.
    pub fn of(mol: &Mol<Tensor>, queries: &PreparedQueries) -> Arc<QuerySide> {
        queries.side(|side: &QuerySide| side.mol.shares_weights(mol), || QuerySide::new(mol, queries))
    }

    fn new(mol: &Mol<Tensor>, queries: &PreparedQueries) -> QuerySide {
        let batch = queries.batch();
        let weights = mol.map(&mut |tensor| CpuOps::default().floats(tensor));
        let embeddings = CpuOps::default().floats(&batch.embeddings);
        let (components, gates) =
            weights.query_side(&mut CpuOps::default(), &embeddings, batch.len(), batch.user_ids.as_deref());
        QuerySide {
            mol: mol.clone(),
            n_queries: batch.len(),
            components,
            gates,
            for_components: OnceLock::new(),
            for_raw: OnceLock::new(),
        }
    }

    /// (B, P_Q * D_P): component embeddings.
    pub fn components(&self) -> Tensor {
        Tensor::trusted(vec![self.n_queries, self.components.len() / self.n_queries.max(1)], self.components.to_vec())
    }

    /// (B): the queries for tables of this form.
    pub fn queries(&self, form: Form) -> &[MolQuery] {
        let packed = match form {
            Form::Components => &self.for_components,
            Form::Raw => &self.for_raw,
        };
        packed.get_or_init(|| self.packed(form))
    }

    fn packed(&self, form: Form) -> Vec<MolQuery> {
        let config = &self.mol.config;
        let width = config.query_dot_product_groups * config.dot_product_dimension;
        let query = |(i, components): (usize, &[f32])| {
            let gate = self.gates.as_ref().map(|gates| gates[i * config.n_logits()..][..config.n_logits()].to_vec());
            match (form, &self.mol.item) {
                (Form::Raw, Some(projection)) => MolQuery::transformed(config, &projection.output, components, gate),
                _ => MolQuery::from_components(config, components, gate),
            }
        };
        self.components.chunks_exact(width).enumerate().map(query).collect()
    }
}
