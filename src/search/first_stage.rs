//! What a first stage works on.

use crate::Result;
use crate::backend::{PreparedQueries, SearchContext, Similarity, mol_queries};
use crate::index::{Excluded, Snapshot};
use crate::learn;
use crate::tensor::Tensor;

/// A batch and what its queries must not find.
pub(super) struct FirstStage<'a> {
    pub context: &'a SearchContext,
    pub snapshot: &'a Snapshot,
    pub similarity: &'a Similarity,
    pub queries: &'a PreparedQueries<'a>,
    pub excluded: &'a Excluded,
    /// (B, P_Q * D_P): component embeddings of the queries.
    pub components: Tensor,
}

impl<'a> FirstStage<'a> {
    /// Computes the query side on the host, unless it has been already.
    ///
    /// # Errors
    /// If shapes do not fit, or a number is not finite.
    pub fn new(
        context: &'a SearchContext,
        snapshot: &'a Snapshot,
        similarity: &'a Similarity,
        queries: &'a PreparedQueries<'a>,
        excluded: &'a Excluded,
    ) -> Result<FirstStage<'a>> {
        let mol = &similarity.mol;
        mol_queries(mol.item_dim(), Some(&mol.config), queries.batch())?;
        Ok(FirstStage {
            context,
            snapshot,
            similarity,
            queries,
            excluded,
            components: learn::query_components(mol, queries),
        })
    }

    /// (B, D_P): the sum of the components of each query.
    pub fn sums(&self) -> Tensor {
        let d_p = self.similarity.mol.config.dot_product_dimension;
        let mut sums = Vec::with_capacity(self.components.rows() * d_p);
        for components in self.components.data().chunks_exact(self.components.width().max(1)) {
            sums.extend((0..d_p).map(|j| components.iter().skip(j).step_by(d_p).sum::<f32>()));
        }
        Tensor::trusted(vec![self.components.rows(), d_p], sums)
    }
}
