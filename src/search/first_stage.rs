//! What a first stage works on.

use super::Algorithm;
use crate::backend::{PreparedQueries, Scorer, SearchContext, Similarity, mol_queries, no_distilled};
use crate::error::Parameter;
use crate::index::{Excluded, Snapshot};
use crate::learn;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// A batch and what its queries must not find.
pub(super) struct FirstStage<'a> {
    pub context: &'a SearchContext,
    pub snapshot: &'a Snapshot,
    pub queries: &'a PreparedQueries<'a>,
    pub excluded: &'a Excluded,
    /// Of an index with Mixture-of-Logits.
    mol: Option<MolQueries<'a>>,
}

/// The queries as Mixture-of-Logits sees them.
pub(super) struct MolQueries<'a> {
    pub similarity: &'a Similarity,
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
        queries: &'a PreparedQueries<'a>,
        excluded: &'a Excluded,
    ) -> Result<FirstStage<'a>> {
        let of = |similarity: &'a Similarity| {
            let mol = &similarity.mol;
            mol_queries(mol.query_dim(), Some(&mol.config), queries.batch())?;
            Ok::<_, Error>(MolQueries { similarity, components: learn::query_components(mol, queries) })
        };
        let mol = snapshot.similarity().map(of).transpose()?;
        Ok(FirstStage { context, snapshot, queries, excluded, mol })
    }

    /// The same for some of the queries, `queries`, and what these must not find.
    pub fn of_some<'b>(
        &'b self,
        rows: &[usize],
        queries: &'b PreparedQueries<'b>,
        excluded: &'b Excluded,
    ) -> FirstStage<'b> {
        let some = |mol: &MolQueries<'b>| MolQueries { components: mol.components.select_rows(rows), ..*mol };
        FirstStage { queries, excluded, mol: self.mol.as_ref().map(some), ..*self }
    }

    /// The queries as Mixture-of-Logits sees them.
    ///
    /// # Errors
    /// If the index has no such similarity, which `algorithm` is for.
    pub fn mol(&self, algorithm: Algorithm) -> Result<&MolQueries<'a>> {
        self.mol.as_ref().ok_or_else(|| without_mol(algorithm, self.snapshot))
    }
}

/// Whether `snapshot` has the similarity that `algorithm` is for.
///
/// # Errors
/// If not.
pub(super) fn check(algorithm: Algorithm, snapshot: &Snapshot) -> Result<()> {
    match (algorithm, snapshot.scorer()) {
        (Algorithm::Exact | Algorithm::ExactPruned | Algorithm::Mips, _) => Ok(()),
        (Algorithm::Avg { .. } | Algorithm::Naive { .. } | Algorithm::Centroids { .. }, Scorer::MaxSim) => Ok(()),
        (Algorithm::Centroids { .. }, Scorer::Mol | Scorer::Dot) => Err(without_tokens(algorithm)),
        (Algorithm::Distilled { .. } | Algorithm::Cascade { .. }, Scorer::Mol)
            if snapshot.similarity().is_none_or(|similarity| similarity.distilled.is_none()) =>
        {
            Err(no_distilled())
        }
        (_, Scorer::Mol) => Ok(()),
        _ => Err(without_mol(algorithm, snapshot)),
    }
}

/// `algorithm` is for late interaction.
pub(super) fn without_tokens(algorithm: Algorithm) -> Error {
    let expected = "an index of token embeddings";
    Error::argument(Parameter::Algorithm, expected, format!("`{algorithm}` on another one"))
}

fn without_mol(algorithm: Algorithm, snapshot: &Snapshot) -> Error {
    let (has, expected) = match snapshot.scorer() {
        Scorer::MaxSim => ("an index of token embeddings", "`exact`, `mips`, `avg:K`, `naive:K` or `centroids:K`, or"),
        _ => ("an index without it", "`exact` or `mips`, or"),
    };
    let expected = format!("{expected} an index with Mixture-of-Logits");
    Error::argument(Parameter::Algorithm, expected, format!("`{algorithm}` on {has}"))
}

impl MolQueries<'_> {
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
