//! What every backend checks before it builds an index or starts a scan.

use super::{Columns, Exclusions, QueryBatch, Scorer};
use crate::config::MolConfig;
use crate::error::Parameter;
use crate::tables::{Lists, Table, Tables};
use crate::tensor::Tensor;
use crate::token_embeddings::TokenEmbeddings;
use crate::{Error, Result};

/// Arguments of a scan over `n_items` items of width `dim`; `mol`: the similarity, if the index has tables for
/// [`Scorer::Mol`].
pub(super) fn scan(
    (n_items, dim, mol): (usize, usize, Option<&MolConfig>),
    scorer: Scorer,
    queries: &QueryBatch,
    k: usize,
    excluded: &Exclusions,
) -> Result<()> {
    match scorer {
        Scorer::Mol | Scorer::Distilled | Scorer::Bound => mol_queries(dim, mol, queries)?,
        Scorer::Dot if mol.is_some_and(|mol| mol.given_components) => {
            let expected = "one of Mixture-of-Logits, as items are component embeddings";
            return Err(Error::argument(Parameter::Scorer, expected, "inner products of raw embeddings"));
        }
        Scorer::Dot => matrix(Parameter::QueryEmbeddings, &queries.embeddings, dim)?,
        Scorer::MaxSim | Scorer::Centroids => tokens(dim, queries).map(|_| ())?,
    }
    top_k(n_items, queries.len(), k, excluded)
}

/// Queries for an index with Mixture-of-Logits tables (`mol`) and raw embeddings of width `dim`.
pub(crate) fn mol_queries(dim: usize, mol: Option<&MolConfig>, queries: &QueryBatch) -> Result<()> {
    let mol = mol.ok_or_else(no_mol)?;
    match queries.embeddings.shape() {
        // Components of each query, as they are given.
        [_, _, _] if mol.given_components => {
            finite(Parameter::QueryEmbeddings, &queries.embeddings, mol.query_width())?
        }
        _ => matrix(Parameter::QueryEmbeddings, &queries.embeddings, mol.query_dim(dim))?,
    }
    users(mol, queries.len(), queries.user_ids.as_deref())
}

/// The token embeddings of queries, for an index with those of items, of width `dim`.
pub(super) fn tokens(dim: usize, queries: &QueryBatch) -> Result<&TokenEmbeddings> {
    let Some(tokens) = &queries.token_embeddings else {
        let expected = "queries of several vectors each (`QueryBatch::of_tokens`), as the items of the index have";
        return Err(Error::argument(Parameter::TokenEmbeddings, expected, "one embedding per query"));
    };
    matrix(Parameter::TokenEmbeddings, tokens.vectors(), dim)?;
    match tokens.len() == queries.len() {
        true => Ok(tokens),
        false => {
            Err(Error::argument(Parameter::TokenLengths, format!("{}, one per query", queries.len()), tokens.len()))
        }
    }
}

/// One user per query, if the model asks who they are.
pub(super) fn users(mol: &MolConfig, n_queries: usize, user_ids: Option<&[i64]>) -> Result<()> {
    match user_ids {
        None if !mol.uid_embedding_hash_sizes.is_empty() => {
            let expected = "one per query (`QueryBatch::with_users`), since the model has uid embeddings";
            Err(Error::argument(Parameter::UserIds, expected, "none"))
        }
        Some(users) if users.len() != n_queries => {
            Err(Error::argument(Parameter::UserIds, format!("{n_queries}, one per query"), users.len()))
        }
        _ => Ok(()),
    }
}

/// Vectors of a first stage.
pub(super) fn components(tables: &Tables, vectors: &Tensor, columns: Columns) -> Result<()> {
    if let (Columns::Mean, Some(_)) = (columns, &tables.tokens) {
        return matrix(Parameter::ComponentVectors, vectors, tables.raw.width());
    }
    let mol = tables.mol.as_ref().ok_or_else(no_mol)?;
    let norms = mol.inverse_norms.as_ref().map_or(0, Table::width);
    let (p_x, d_p) = (tables.components().map_or(norms, Table::groups), mol.mean.width());
    let width = match columns {
        Columns::Group(group) if group >= p_x => {
            return Err(Error::argument(Parameter::ComponentGroup, format!("0..{p_x}"), group));
        }
        Columns::Group(_) | Columns::Mean => d_p,
        Columns::All => p_x * d_p,
        Columns::Principal => {
            let missing = || Error::argument(Parameter::Columns, "an index with principal directions", "one without");
            mol.principal.as_ref().ok_or_else(missing)?.width()
        }
    };
    matrix(Parameter::ComponentVectors, vectors, width)
}

/// Lists number `lists` of the tables, and as many choices of them as there are vectors.
pub(super) fn lists<'a>(tables: &'a Tables, lists: usize, vectors: &Tensor, probes: &[Vec<u32>]) -> Result<&'a Lists> {
    let n = tables.lists.len();
    let Some(lists) = tables.lists.get(lists) else {
        return Err(Error::argument(
            Parameter::InvertedLists,
            format!("one of {n} in the index"),
            format!("number {lists}"),
        ));
    };
    matrix(Parameter::ListVectors, vectors, lists.centroids.width())?;
    let n_lists = lists.centroids.rows();
    if probes.len() != vectors.rows() || probes.iter().flatten().any(|&list| list as usize >= n_lists) {
        let expected = format!("{} choices of lists below {n_lists}", vectors.rows());
        return Err(Error::argument(Parameter::ProbedLists, expected, format!("{} choices", probes.len())));
    }
    Ok(lists)
}

/// One threshold per vector.
pub(super) fn thresholds(n_vectors: usize, thresholds: &[f32]) -> Result<()> {
    match thresholds.len() == n_vectors && !thresholds.iter().any(|threshold| threshold.is_nan()) {
        true => Ok(()),
        false => {
            let expected = format!("{n_vectors} numbers, one per vector");
            Err(Error::argument(Parameter::Thresholds, expected, format!("{thresholds:?}")))
        }
    }
}

/// A scorer that takes single candidates.
pub(super) fn candidate_scorer(scorer: Scorer) -> Result<()> {
    let found = match scorer {
        Scorer::Dot => "inner products",
        Scorer::Centroids => "centroids",
        Scorer::Mol | Scorer::Distilled | Scorer::Bound | Scorer::MaxSim => return Ok(()),
    };
    Err(Error::argument(Parameter::Scorer, "Mixture-of-Logits or late interaction, for candidates", found))
}

pub(super) fn no_tokens() -> Error {
    Error::argument(Parameter::Scorer, "an index of token embeddings", "one of single vectors")
}

pub(super) fn no_mol() -> Error {
    Error::argument(Parameter::Scorer, "an index built with Mixture-of-Logits weights", "one without")
}

pub(crate) fn no_distilled() -> Error {
    Error::argument(Parameter::Scorer, "an index with a distilled gate (built with one)", "one without")
}

/// One list of positions below `n_items` per query.
pub(super) fn candidates(n_items: usize, n_queries: usize, candidates: &[Vec<u32>]) -> Result<()> {
    if candidates.len() != n_queries {
        return Err(Error::argument(
            Parameter::Candidates,
            format!("{n_queries} lists, one per query"),
            candidates.len(),
        ));
    }
    match candidates.iter().flatten().find(|&&position| position as usize >= n_items) {
        None => Ok(()),
        Some(position) => Err(Error::argument(Parameter::Candidates, format!("positions below {n_items}"), position)),
    }
}

/// `k` and what is excluded.
pub(super) fn top_k(n_items: usize, n_queries: usize, k: usize, excluded: &Exclusions) -> Result<()> {
    if k == 0 || k > n_items {
        return Err(Error::argument(Parameter::K, format!("1 to {n_items} (the number of items)"), k));
    }
    exclusions(n_items, n_queries, excluded)
}

/// Lists in order, and as many bits as items.
pub(super) fn exclusions(n_items: usize, n_queries: usize, excluded: &Exclusions) -> Result<()> {
    if let Some(denied) = &excluded.denied
        && denied.words().len() != n_items.div_ceil(32)
    {
        let found = format!("{} words", denied.words().len());
        return Err(Error::argument(Parameter::DeniedItems, format!("bits of {n_items} items"), found));
    }
    let offsets = &excluded.offsets;
    let ends_meet = offsets.last().is_none_or(|&end| end as usize <= excluded.positions.len());
    if !offsets.is_empty() && offsets.len() != n_queries + 1 || !offsets.is_sorted() || !ends_meet {
        let expected = format!("none, or {} ascending offsets into the positions", n_queries + 1);
        return Err(Error::argument(Parameter::Exclusions, expected, format!("{} offsets", offsets.len())));
    }
    let ascends = |query| excluded.of(query).is_sorted_by(|a, b| a < b);
    match (0..n_queries).find(|&query| !ascends(query)) {
        None => Ok(()),
        Some(query) => Err(Error::argument(
            Parameter::Exclusions,
            "ascending positions per query",
            format!("others for query {query}"),
        )),
    }
}

fn matrix(parameter: Parameter, embeddings: &Tensor, dim: usize) -> Result<()> {
    match embeddings.shape() {
        [_, width] if *width == dim => finite(parameter, embeddings, dim),
        shape => Err(Error::argument(parameter, format!("shape (n, {dim})"), format!("{shape:?}"))),
    }
}

/// Rows of `dim` finite numbers.
fn finite(parameter: Parameter, embeddings: &Tensor, dim: usize) -> Result<()> {
    if embeddings.width() != dim {
        return Err(Error::argument(parameter, format!("rows of {dim} numbers"), format!("{:?}", embeddings.shape())));
    }
    match embeddings.data().iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(at) => {
            let found = format!("{} in row {}", embeddings.data()[at], at / dim);
            Err(Error::argument(parameter, "finite numbers", found))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_scored_by_what_devices_have_for_single_items() {
        for scorer in [Scorer::Dot, Scorer::Centroids] {
            assert!(candidate_scorer(scorer).is_err(), "{scorer:?}");
        }
        for scorer in [Scorer::Mol, Scorer::MaxSim] {
            assert!(candidate_scorer(scorer).is_ok(), "{scorer:?}");
        }
    }
}
