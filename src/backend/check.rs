//! What every backend checks before it builds an index or starts a scan.

use super::{Exclusions, QueryBatch, Scorer};
use crate::model::Mol;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Item embeddings (N, D): at least one, fewer than 2^32, finite, and as wide as `mol` expects.
pub(super) fn items(embeddings: &Tensor, mol: Option<&Mol<Tensor>>) -> Result<()> {
    let dim = mol.map_or(embeddings.width(), Mol::item_dim);
    matrix("item embeddings", embeddings, dim)?;
    if embeddings.rows() == 0 || embeddings.rows() > u32::MAX as usize || dim == 0 {
        let found = format!("{:?}", embeddings.shape());
        return Err(Error::argument("item embeddings", "(N, D) with 1 <= N < 2^32 and D >= 1", found));
    }
    Ok(())
}

/// Arguments of a scan over `n_items` items of width `dim`; `has_mol`: whether the index has tables for
/// [`Scorer::Mol`].
pub(super) fn scan(
    (n_items, dim, has_mol): (usize, usize, bool),
    scorer: Scorer,
    queries: &QueryBatch,
    k: usize,
    excluded: &Exclusions,
) -> Result<()> {
    match scorer {
        Scorer::Mol => mol_queries(dim, has_mol, queries)?,
        Scorer::Dot => matrix("query embeddings", &queries.embeddings, dim)?,
    }
    top_k(n_items, queries.embeddings.rows(), k, excluded)
}

/// Queries for an index with Mixture-of-Logits tables (`has_mol`) and raw embeddings of width `dim`.
pub(super) fn mol_queries(dim: usize, has_mol: bool, queries: &QueryBatch) -> Result<()> {
    if !has_mol {
        return Err(Error::argument("scorer", "an index built with Mixture-of-Logits weights", "one without"));
    }
    matrix("query embeddings", &queries.embeddings, dim)?;
    let n_queries = queries.embeddings.rows();
    if queries.user_ids.len() != n_queries {
        let expected = format!("{n_queries}, one per query");
        return Err(Error::argument("number of user ids", expected, queries.user_ids.len()));
    }
    Ok(())
}

/// Arguments of a scan of the components of `n_items` items; `shape` is (P_X, D_P), if there are components.
pub(super) fn components(
    n_items: usize,
    shape: Option<(usize, usize)>,
    vectors: &Tensor,
    group: Option<usize>,
    k: usize,
    excluded: &Exclusions,
) -> Result<()> {
    let Some((p_x, d_p)) = shape else {
        return Err(Error::argument("scorer", "an index built with Mixture-of-Logits weights", "one without"));
    };
    if let Some(group) = group.filter(|&group| group >= p_x) {
        return Err(Error::argument("component group", format!("0..{p_x}"), group));
    }
    matrix("component vectors", vectors, if group.is_some() { d_p } else { p_x * d_p })?;
    top_k(n_items, vectors.rows(), k, excluded)
}

/// One list of positions below `n_items` per query.
pub(super) fn candidates(n_items: usize, n_queries: usize, candidates: &[Vec<u32>]) -> Result<()> {
    if candidates.len() != n_queries {
        return Err(Error::argument("candidates", format!("{n_queries} lists, one per query"), candidates.len()));
    }
    match candidates.iter().flatten().find(|&&position| position as usize >= n_items) {
        None => Ok(()),
        Some(position) => Err(Error::argument("candidates", format!("positions below {n_items}"), position)),
    }
}

fn top_k(n_items: usize, n_queries: usize, k: usize, excluded: &Exclusions) -> Result<()> {
    if k == 0 || k > n_items {
        return Err(Error::argument("k", format!("1..={n_items} (the number of items)"), k));
    }
    let offsets = &excluded.offsets;
    let ends_meet = offsets.last().is_none_or(|&end| end as usize <= excluded.positions.len());
    if !offsets.is_empty() && offsets.len() != n_queries + 1 || !offsets.is_sorted() || !ends_meet {
        let expected = format!("none, or {} ascending offsets into the positions", n_queries + 1);
        return Err(Error::argument("exclusions", expected, format!("{} offsets", offsets.len())));
    }
    let ascends = |query| excluded.of(query).is_sorted_by(|a, b| a < b);
    match (0..n_queries).find(|&query| !ascends(query)) {
        None => Ok(()),
        Some(query) => {
            Err(Error::argument("exclusions", "ascending positions per query", format!("others for query {query}")))
        }
    }
}

fn matrix(name: &'static str, embeddings: &Tensor, dim: usize) -> Result<()> {
    if embeddings.shape().len() != 2 || embeddings.width() != dim {
        return Err(Error::argument(name, format!("shape (n, {dim})"), format!("{:?}", embeddings.shape())));
    }
    match embeddings.data().iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(at) => {
            let found = format!("{} in row {}", embeddings.data()[at], at / dim);
            Err(Error::argument(name, "finite numbers", found))
        }
    }
}
