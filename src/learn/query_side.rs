//! The query side of Mixture-of-Logits on the host.

use crate::backend::PreparedQueries;
use crate::backend::cpu::QuerySide;
use crate::model::Mol;
use crate::tensor::Tensor;

/// (B, P_Q * D_P): component embeddings of queries whose shape and users have been checked.
pub(crate) fn query_components(mol: &Mol<Tensor>, queries: &PreparedQueries) -> Tensor {
    QuerySide::of(mol, queries).components()
}
