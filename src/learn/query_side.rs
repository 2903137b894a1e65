//! The query side of Mixture-of-Logits on the host.

use crate::backend::QueryBatch;
use crate::backend::cpu::CpuOps;
use crate::model::Mol;
use crate::ops::Ops;
use crate::tensor::Tensor;

/// (B, P_Q * D_P): component embeddings of queries whose shape and users have been checked.
pub(crate) fn query_components(mol: &Mol<Tensor>, queries: &QueryBatch) -> Tensor {
    let n = queries.len();
    let weights = mol.map(&mut |tensor| CpuOps.floats(tensor));
    let embeddings = CpuOps.floats(&queries.embeddings);
    let (components, _) = weights.query_side(&mut CpuOps, &embeddings, n, queries.user_ids.as_deref());
    Tensor::trusted(vec![n, components.len() / n.max(1)], components.to_vec())
}
