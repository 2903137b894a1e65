//! Bench files: a similarity, items and queries without an encoder or a data set, with the results to expect, so that
//! programs in any language can be timed on identical inputs.

use std::collections::BTreeMap;

use super::QuerySet;
use rails_wgpu::backend::QueryBatch;
use rails_wgpu::checkpoint::{Checkpoint, Weights};
use rails_wgpu::config::{GatingCombination, GluConfig, GluNonlinearity, MolConfig};
use rails_wgpu::model::Mol;
use rails_wgpu::tensor::Tensor;
use rails_wgpu::{Error, Result};

/// Ids from here on cannot be told apart when they are read as f32.
const FIRST_INEXACT_ID: f32 = 16_777_216.0;

const UID_TABLE: &str = "_ndp_module._query_embeddings_fn._uid_embeddings_";

/// What a bench file holds: `items` (N, D), `item_ids` (N), `queries` (U, D), `user_ids` (U), the weights of a
/// Mixture-of-Logits similarity under the reference's names and, for any number n of items, `expect.n.ids` (U, K): the best
/// of the first n items for each query, the best first. Anything else under `expect.` is passed over.
pub struct BenchFile {
    /// The similarity.
    pub mol: Mol<Tensor>,
    /// (N): ids of the items.
    pub item_ids: Vec<u64>,
    items: Tensor,
    queries: Tensor,
    user_ids: Vec<i64>,
    expected: BTreeMap<usize, Vec<Vec<u64>>>,
}

impl BenchFile {
    /// Takes everything out of `checkpoint`.
    ///
    /// # Errors
    /// As [`Model::load`](rails_wgpu::model::Model::load); also if an id is not a whole number below 2^24, or numbers of rows do
    /// not fit together.
    pub fn load(checkpoint: &Checkpoint, config: &MolConfig) -> Result<BenchFile> {
        let mut weights = Weights::new(checkpoint);
        let (n_items, n_queries) = (weights.rows("items")?, weights.rows("queries")?);
        let dim = weights.shape("items").and_then(|shape| shape.get(1)).copied().unwrap_or(0);
        if n_items == 0 || n_queries == 0 || dim == 0 {
            let found = format!("{n_items} items and {n_queries} queries of width {dim}");
            return Err(Error::argument("bench file", "`items` (N, D) and `queries` (U, D), none of them 0", found));
        }
        let items = weights.take("items", &[n_items, dim])?;
        let queries = weights.take("queries", &[n_queries, dim])?;
        let item_ids = ids(&weights.take("item_ids", &[n_items])?, "item_ids")?;
        let user_ids = ids(&weights.take("user_ids", &[n_queries])?, "user_ids")?;
        let mol = Mol::load(&mut weights, config, dim)?;
        let mut expected = BTreeMap::new();
        for name in checkpoint.names().filter(|name| name.starts_with("expect.")) {
            let tensor = weights.take(name, checkpoint.shape(name).unwrap_or_default())?;
            let n = name.strip_prefix("expect.").and_then(|rest| rest.strip_suffix(".ids"));
            if let Some(n) = n.and_then(|n| n.parse::<usize>().ok()) {
                let width = tensor.width().max(1);
                weights.take(name, &[n_queries, width])?;
                let lists = ids(&tensor, "expected ids")?;
                expected.insert(n, lists.chunks_exact(width).map(<[u64]>::to_vec).collect());
            }
        }
        weights.finish()?;
        let user_ids = user_ids.into_iter().map(|id| id as i64).collect();
        Ok(BenchFile { mol, item_ids, items, queries, user_ids, expected })
    }

    /// What the shapes of `checkpoint` tell of the hyper-parameters; the others (temperature, activation, normalisation,
    /// combination of the gates) are those of the reference's MovieLens models.
    ///
    /// # Errors
    /// If there is no table of uid embeddings, whose width is the only one that tells D_P, or a tensor is missing.
    pub fn guess_config(checkpoint: &Checkpoint) -> Result<MolConfig> {
        let weights = Weights::new(checkpoint);
        let rows = |name: &str| weights.rows(&format!("_ndp_module.{name}"));
        let part = |name: &str, first: usize| {
            let hidden = format!("_gating_fn.{name}.{first}.weight");
            if weights.has(&format!("_ndp_module.{hidden}")) { rows(&hidden).map(Some) } else { Ok(None) }
        };
        let hidden = |name: &str| {
            let weight = format!("_ndp_module.{name}.1._w");
            let width = weights.shape(&weight).and_then(|shape| shape.get(1)).copied();
            width.map(|doubled| GluConfig { hidden_dim: doubled / 2, nonlinearity: GluNonlinearity::Swiglu })
        };
        let uid_tables: Vec<&[usize]> = (0..)
            .map_while(|i| weights.shape(&format!("{UID_TABLE}{i}.weight")))
            .filter(|shape| shape.len() == 2)
            .collect();
        let Some(width) = uid_tables.first().map(|shape| shape[1]).filter(|&width| width > 0) else {
            return Err(Error::Checkpoint {
                path: checkpoint.path().to_path_buf(),
                what: "holds no hyper-parameters, and no uid embeddings that would tell the width of a component"
                    .to_string(),
                fix: "name the model's .gin file with --config".to_string(),
            });
        };
        let (query, item) =
            ("_query_embeddings_fn._query_emb_proj_module", "_item_embeddings_fn._item_emb_proj_module");
        let (query_hidden, item_hidden) = (hidden(query), hidden(item));
        let groups = |name: &str, hidden: bool| {
            Ok::<_, Error>(rows(&format!("{name}.{}.bias", if hidden { 2 } else { 1 }))? / width)
        };
        let qi = "_qi_partial_module";
        let query_groups = groups(query, query_hidden.is_some())?;
        let item_groups = groups(item, item_hidden.is_some())?;
        if query_groups == 0 || item_groups == 0 {
            let found = format!("{query_groups} of the query, {item_groups} of the item");
            return Err(Error::argument("component embeddings", "at least one of each from a projection", found));
        }
        let has_qi_hidden = weights.has(&format!("_ndp_module._gating_fn.{qi}.3.weight"));
        Ok(MolConfig {
            query_dot_product_groups: query_groups + uid_tables.len(),
            item_dot_product_groups: item_groups,
            dot_product_dimension: width,
            given_components: false,
            temperature: 0.05,
            dot_product_l2_norm: true,
            eps: 1e-6,
            query_hidden,
            item_hidden,
            uid_embedding_hash_sizes: uid_tables.iter().map(|shape| shape[0].saturating_sub(1)).collect(),
            gating_combination: GatingCombination::GluSilu,
            gating_query_hidden_dim: part("_query_only_partial_module", 0)?,
            gating_item_hidden_dim: part("_item_only_partial_module", 1)?,
            gating_qi_hidden_dim: if has_qi_hidden { part(qi, 1)? } else { None },
        })
    }

    /// The first `limit` queries, or all of them.
    pub fn queries(&self, limit: Option<usize>) -> QuerySet {
        let n = limit.unwrap_or(usize::MAX).min(self.user_ids.len());
        QuerySet::new(QueryBatch::new(first_rows(&self.queries, n)).with_users(&self.user_ids[..n]))
    }

    /// The expected results of each query among the first `n_items` items, if the file has them.
    pub fn expected(&self, n_items: usize) -> Option<&[Vec<u64>]> {
        self.expected.get(&n_items).map(Vec::as_slice)
    }

    /// Raw embeddings of the first `n` items.
    pub fn first_items(&self, n: usize) -> Tensor {
        first_rows(&self.items, n)
    }
}

fn first_rows(matrix: &Tensor, n: usize) -> Tensor {
    matrix.select_rows(&(0..n).collect::<Vec<usize>>())
}

fn ids(tensor: &Tensor, name: &'static str) -> Result<Vec<u64>> {
    let id = |&value: &f32| match value.fract() == 0.0 && (0.0..FIRST_INEXACT_ID).contains(&value) {
        true => Ok(value as u64),
        false => Err(Error::argument(name, "whole numbers from 0 to 2^24 - 1", value)),
    };
    tensor.data().iter().map(id).collect()
}
