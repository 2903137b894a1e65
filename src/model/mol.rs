//! Weights of Mixture-of-Logits (Retrieval with Learned Similarities, arXiv 2407.15462, section 2; Revisiting Neural
//! Retrieval on Accelerators, arXiv 2306.04039) and its two one-sided parts: what depends on the query only is
//! computed once per query, what depends on the item only once per index.

use crate::checkpoint::Weights;
use crate::config::{GluConfig, GluNonlinearity, MolConfig};
use crate::error::Parameter;
use crate::model::torch_linear;
use crate::ops::{Activation, DropoutSite, Linear, Ops};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Weights of a Mixture-of-Logits similarity, wherever `T` keeps them.
#[derive(Clone, Debug)]
pub struct Mol<T> {
    /// Its hyper-parameters.
    pub config: MolConfig,
    /// D -> (P_Q - uid tables) * D_P; `None` if query embeddings are the components already.
    pub query: Option<Projection<T>>,
    /// (hash size + 1, D_P): one table per uid hash.
    pub uid_tables: Vec<T>,
    /// D -> P_X * D_P; `None` if item embeddings are the components already.
    pub item: Option<Projection<T>>,
    /// D -> L: query-only gate part.
    pub gate_query: Option<GatePart<T>>,
    /// D -> L: item-only gate part.
    pub gate_item: Option<GatePart<T>>,
    /// L -> L: cross gate part, on the scaled logits.
    pub gate_cross: CrossGate<T>,
    /// P_X * D_P -> R: coordinates of components in their principal directions. Not a part of the model: an index finds them
    /// in its items.
    pub principal: Option<Linear<T>>,
}

/// Projection of an embedding into component embeddings.
#[derive(Clone, Debug)]
pub struct Projection<T> {
    /// The gated hidden layer, if any: a linear layer twice as wide as its result, and its activation.
    pub glu: Option<(Linear<T>, Activation)>,
    /// The output layer.
    pub output: Linear<T>,
}

/// A one-sided gate part: linear, SiLU, linear without bias.
#[derive(Clone, Debug)]
pub struct GatePart<T> {
    /// D -> hidden.
    pub hidden: Linear<T>,
    /// Hidden -> L.
    pub output: Linear<T>,
}

/// The cross gate part QI: a linear layer, or linear, SiLU, linear.
#[derive(Clone, Debug)]
pub struct CrossGate<T> {
    /// L -> H, followed by SiLU.
    pub hidden: Option<Linear<T>>,
    /// H (or L) -> L.
    pub output: Linear<T>,
    /// (L, L): weights of a linear part beside the hidden layer; only distilled gates have one.
    pub linear: Option<T>,
}

/// What [`Mol::item_side`] computes for n items.
#[derive(Clone, Debug)]
pub struct ItemParts<T> {
    /// (n, P_X * D_P): component embeddings g_m(x).
    pub components: T,
    /// The same before they were l2-normalised, if they were.
    pub projected: Option<T>,
    /// (n, L): item-only gate part, if there is one.
    pub gate: Option<T>,
    /// (n, R): the components in their principal directions, if these are known.
    pub principal: Option<T>,
}

impl<T> CrossGate<T> {
    /// Whether the gate adds products of the logits themselves: a linear layer is all it has, or lies beside the hidden one.
    pub fn has_linear_part(&self) -> bool {
        self.hidden.is_none() || self.linear.is_some()
    }

    /// The same weights with their arrays elsewhere.
    pub fn map<U>(&self, f: &mut impl FnMut(&T) -> U) -> CrossGate<U> {
        CrossGate {
            hidden: self.hidden.as_ref().map(|layer| layer.map(f)),
            output: self.output.map(f),
            linear: self.linear.as_ref().map(f),
        }
    }
}

pub(super) const QUERY: &str = "_ndp_module._query_embeddings_fn";
pub(super) const ITEM: &str = "_ndp_module._item_embeddings_fn";
pub(super) const GATE: &str = "_ndp_module._gating_fn";

impl Mol<Tensor> {
    /// Whether the weights are the same arrays, not only the same numbers.
    pub(crate) fn shares_weights(&self, other: &Mol<Tensor>) -> bool {
        let arrays = |mol: &Mol<Tensor>| {
            let mut arrays = Vec::new();
            mol.map(&mut |tensor| arrays.push(tensor.data().as_ptr()));
            arrays
        };
        self.config == other.config && arrays(self) == arrays(other)
    }

    /// Takes every tensor that `config` asks for out of `weights`, for raw embeddings of width `dim`.
    ///
    /// # Errors
    /// As [`Weights::take`].
    pub fn load(weights: &mut Weights, config: &MolConfig, dim: usize) -> Result<Mol<Tensor>> {
        let (d_p, n_logits) = (config.dot_product_dimension, config.n_logits());
        let mut projection = |name: &str, hidden: &Option<GluConfig>, n_out: usize| {
            let load = || Projection::load(weights, name, hidden.as_ref(), dim, n_out);
            (!config.given_components).then(load).transpose()
        };
        let query = projection(&format!("{QUERY}._query_emb_proj_module"), &config.query_hidden, config.query_width())?;
        let item = projection(&format!("{ITEM}._item_emb_proj_module"), &config.item_hidden, config.item_width())?;
        let uid_tables = config.uid_embedding_hash_sizes.iter().enumerate();
        let uid_tables = uid_tables
            .map(|(i, &size)| weights.take(&format!("{QUERY}._uid_embeddings_{i}.weight"), &[size + 1, d_p]))
            .collect::<Result<_>>()?;
        let mut gate_part = |name: &str, first: usize, hidden: Option<usize>| {
            let load = |hidden| {
                Ok(GatePart {
                    hidden: torch_linear(weights, &format!("{GATE}.{name}.{first}"), dim, hidden, true)?,
                    output: torch_linear(weights, &format!("{GATE}.{name}.{}", first + 2), hidden, n_logits, false)?,
                })
            };
            hidden.map(load).transpose()
        };
        let gate_query = gate_part("_query_only_partial_module", 0, config.gating_query_hidden_dim)?;
        let gate_item = gate_part("_item_only_partial_module", 1, config.gating_item_hidden_dim)?;
        let cross = format!("{GATE}._qi_partial_module");
        let gate_cross = match config.gating_qi_hidden_dim {
            Some(hidden) => CrossGate {
                hidden: Some(torch_linear(weights, &format!("{cross}.1"), n_logits, hidden, true)?),
                output: torch_linear(weights, &format!("{cross}.3"), hidden, n_logits, true)?,
                linear: None,
            },
            None => CrossGate {
                hidden: None,
                output: torch_linear(weights, &format!("{cross}.1"), n_logits, n_logits, true)?,
                linear: None,
            },
        };
        Ok(Mol { config: config.clone(), query, uid_tables, item, gate_query, gate_item, gate_cross, principal: None })
    }

    /// The largest L = P_Q * P_X of [`Mol::of_components`], whose gate may have L x L weights.
    pub const MAX_LOGITS: usize = 4096;

    /// The similarity of component embeddings that are given as they are, see [`MolConfig::of_components`]. The gate is the
    /// cross part QI; without one, the gating weights are the softmax of the logits themselves.
    ///
    /// # Errors
    /// If the configuration is not one of given components, has uid tables or more than [`Mol::MAX_LOGITS`] logits, or asks for a
    /// gate of another shape.
    pub fn of_components(config: &MolConfig, gate: Option<CrossGate<Tensor>>) -> Result<Mol<Tensor>> {
        // Before anything multiplies these.
        let (n_query, n_item) = (config.query_dot_product_groups, config.item_dot_product_groups);
        if n_query.checked_mul(n_item).is_none_or(|n_logits| n_logits > Self::MAX_LOGITS) {
            let expected = format!("at most {} logits, P_Q * P_X", Self::MAX_LOGITS);
            return Err(Error::argument(Parameter::Model, expected, format!("{n_query} * {n_item}")));
        }
        config.validate()?;
        if !config.given_components || !config.uid_embedding_hash_sizes.is_empty() {
            let expected = "given_components, and no uid_embedding_hash_sizes";
            return Err(Error::argument(Parameter::Model, expected, "a similarity with projections or uid tables"));
        }
        let n_logits = config.n_logits();
        let gate_cross = gate.unwrap_or_else(|| CrossGate::of_logits(n_logits));
        gate_cross.check(n_logits)?;
        let gating_qi_hidden_dim = gate_cross.hidden.as_ref().map(|layer| layer.n_out);
        let config = MolConfig { gating_qi_hidden_dim, ..config.clone() };
        Ok(Mol {
            config,
            query: None,
            uid_tables: Vec::new(),
            item: None,
            gate_query: None,
            gate_item: None,
            gate_cross,
            principal: None,
        })
    }
}

impl CrossGate<Tensor> {
    /// The gate whose values are the logits themselves.
    fn of_logits(n_logits: usize) -> CrossGate<Tensor> {
        let mut identity = vec![0.0; n_logits * n_logits];
        identity.iter_mut().step_by(n_logits + 1).for_each(|diagonal| *diagonal = 1.0);
        let weight = Tensor::trusted(vec![n_logits, n_logits], identity);
        let bias = Some(Tensor::trusted(vec![n_logits], vec![0.0; n_logits]));
        CrossGate { hidden: None, output: Linear { weight, bias, n_in: n_logits, n_out: n_logits }, linear: None }
    }

    /// Whether it is a gate of `n_logits`, with a bias in each layer.
    fn check(&self, n_logits: usize) -> Result<()> {
        let fits = |layer: &Linear<Tensor>| {
            let bias = layer.bias.as_ref().is_some_and(|bias| bias.shape() == [layer.n_out]);
            bias && layer.n_out > 0 && layer.weight.shape() == [layer.n_in, layer.n_out]
        };
        let layers = || self.hidden.iter().chain([&self.output]);
        let width = self.hidden.as_ref().map_or(n_logits, |layer| layer.n_out);
        let chained = self.hidden.as_ref().is_none_or(|layer| layer.n_in == n_logits) && self.output.n_in == width;
        if chained && self.output.n_out == n_logits && layers().all(fits) && self.linear.is_none() {
            return Ok(());
        }
        let expected =
            format!("a gate {n_logits} -> H -> {n_logits} or {n_logits} -> {n_logits} with biases, L = {n_logits}");
        let widths: Vec<[usize; 2]> = layers().map(|layer| [layer.n_in, layer.n_out]).collect();
        Err(Error::argument(Parameter::Model, expected, format!("layers of widths {widths:?}")))
    }
}

impl<T> Mol<T> {
    /// D: width of the raw item embeddings; P_X * D_P if these are the components.
    pub fn item_dim(&self) -> usize {
        self.item.as_ref().map_or_else(|| self.config.item_width(), Projection::n_in)
    }

    /// D: width of the raw query embeddings; (P_Q - uid tables) * D_P if these are components.
    pub fn query_dim(&self) -> usize {
        self.query.as_ref().map_or_else(|| self.config.query_width(), Projection::n_in)
    }

    /// The same weights with their arrays elsewhere.
    pub fn map<U>(&self, f: &mut impl FnMut(&T) -> U) -> Mol<U> {
        Mol {
            config: self.config.clone(),
            query: self.query.as_ref().map(|projection| projection.map(f)),
            uid_tables: self.uid_tables.iter().map(&mut *f).collect(),
            item: self.item.as_ref().map(|projection| projection.map(f)),
            gate_query: self.gate_query.as_ref().map(|part| part.map(f)),
            gate_item: self.gate_item.as_ref().map(|part| part.map(f)),
            gate_cross: self.gate_cross.map(f),
            principal: self.principal.as_ref().map(|layer| layer.map(f)),
        }
    }

    /// The query side: component embeddings f_n(q) (B, P_Q * D_P) and, if there is one, the query-only gate part
    /// (B, L), of `batch` raw query embeddings (B, D). `user_ids` (B) are looked at only if there are uid tables, which
    /// need them.
    pub fn query_side<O: Ops<Floats = T>>(
        &self,
        ops: &mut O,
        queries: &T,
        batch: usize,
        user_ids: Option<&[i64]>,
    ) -> (T, Option<T>)
    where
        T: Clone,
    {
        let (projected, gate) = self.query_projection(ops, queries, batch);
        (self.query_components(ops, projected, batch, user_ids), gate)
    }

    /// What of the query side depends on the queries (B, D) alone: the projected components (B, (P_Q - uid tables) * D_P), not yet
    /// normalised, and the query-only gate part (B, L).
    pub(crate) fn query_projection<O: Ops<Floats = T>>(&self, ops: &mut O, queries: &T, batch: usize) -> (T, Option<T>)
    where
        T: Clone,
    {
        let projected = match &self.query {
            Some(projection) => projection.forward(ops, queries, batch, DropoutSite::Query),
            None => queries.clone(),
        };
        (projected, self.gate_query.as_ref().map(|part| part.forward(ops, queries, batch)))
    }

    /// All components (B, P_Q * D_P): those that were projected, and the uid embeddings.
    pub(crate) fn query_components<O: Ops<Floats = T>>(
        &self,
        ops: &mut O,
        projected: T,
        batch: usize,
        user_ids: Option<&[i64]>,
    ) -> T {
        let (user_ids, d_p) = (user_ids.unwrap_or_default(), self.config.dot_product_dimension);
        let uid_embeddings: Vec<T> = self
            .uid_tables
            .iter()
            .enumerate()
            .map(|(i, table)| {
                let rows = ops.ints(&self.uid_rows(i, user_ids));
                let embeddings = ops.gather(table, d_p, &rows, batch);
                ops.dropout(&embeddings, batch, d_p, DropoutSite::Uid { table: i })
            })
            .collect();
        let mut parts = vec![(&projected, self.config.query_width())];
        parts.extend(uid_embeddings.iter().map(|embedding| (embedding, d_p)));
        let joined = if parts.len() == 1 { projected } else { ops.concat(&parts, batch) };
        self.normalised(ops, &joined, batch * self.config.query_dot_product_groups).unwrap_or(joined)
    }

    /// The rows of uid table `table` that belong to these users.
    pub fn uid_rows(&self, table: usize, user_ids: &[i64]) -> Vec<u32> {
        let size = self.config.uid_embedding_hash_sizes[table] as i64;
        user_ids.iter().map(|id| id.rem_euclid(size) as u32 + 1).collect()
    }

    /// The item side of raw item embeddings (n, D).
    pub fn item_side<O: Ops<Floats = T>>(&self, ops: &mut O, items: &T, n: usize) -> ItemParts<T>
    where
        T: Clone,
    {
        let projected = match &self.item {
            Some(projection) => projection.forward(ops, items, n, DropoutSite::Item),
            None => items.clone(),
        };
        let components = self.normalised(ops, &projected, n * self.config.item_dot_product_groups);
        let gate = self.gate_item.as_ref().map(|part| {
            let items = ops.dropout(items, n, part.hidden.n_in, DropoutSite::GateItem);
            part.forward(ops, &items, n)
        });
        let (components, projected) = match components {
            Some(components) => (components, Some(projected)),
            None => (projected, None),
        };
        let principal = self.principal.as_ref();
        let principal = principal.map(|layer| ops.linear(&components, n, layer, Activation::Identity, None));
        ItemParts { components, projected, gate, principal }
    }

    fn normalised<O: Ops<Floats = T>>(&self, ops: &mut O, components: &T, rows: usize) -> Option<T> {
        let (width, eps) = (self.config.dot_product_dimension, self.config.eps);
        self.config.dot_product_l2_norm.then(|| ops.l2_norm(components, rows, width, eps))
    }
}

impl Projection<Tensor> {
    fn load(
        weights: &mut Weights,
        name: &str,
        hidden: Option<&GluConfig>,
        dim: usize,
        n_out: usize,
    ) -> Result<Projection<Tensor>> {
        let Some(config) = hidden else {
            return Ok(Projection {
                glu: None,
                output: torch_linear(weights, &format!("{name}.1"), dim, n_out, true)?,
            });
        };
        let doubled = 2 * config.hidden_dim;
        let bias = weights.take(&format!("{name}.1._b"), &[1, doubled])?;
        let glu = Linear {
            weight: weights.take(&format!("{name}.1._w"), &[dim, doubled])?,
            bias: Some(Tensor::trusted(vec![doubled], bias.data().to_vec())),
            n_in: dim,
            n_out: doubled,
        };
        let activation = match config.nonlinearity {
            GluNonlinearity::Geglu => Activation::Gelu,
            GluNonlinearity::Swiglu => Activation::Silu,
        };
        let output = torch_linear(weights, &format!("{name}.2"), config.hidden_dim, n_out, true)?;
        Ok(Projection { glu: Some((glu, activation)), output })
    }
}

impl<T> Projection<T> {
    /// D.
    fn n_in(&self) -> usize {
        self.glu.as_ref().map_or(self.output.n_in, |(layer, _)| layer.n_in)
    }

    fn map<U>(&self, f: &mut impl FnMut(&T) -> U) -> Projection<U> {
        Projection {
            glu: self.glu.as_ref().map(|(layer, activation)| (layer.map(f), *activation)),
            output: self.output.map(f),
        }
    }

    fn forward<O: Ops<Floats = T>>(&self, ops: &mut O, x: &T, rows: usize, site: DropoutSite) -> T {
        let Some((glu, activation)) = &self.glu else {
            let x = ops.dropout(x, rows, self.output.n_in, site);
            return ops.linear(&x, rows, &self.output, Activation::Identity, None);
        };
        let x = ops.dropout(x, rows, glu.n_in, site);
        let doubled = ops.linear(&x, rows, glu, Activation::Identity, None);
        let hidden = ops.glu(&doubled, rows, glu.n_out / 2, *activation);
        ops.linear(&hidden, rows, &self.output, Activation::Identity, None)
    }
}

impl<T> GatePart<T> {
    fn map<U>(&self, f: &mut impl FnMut(&T) -> U) -> GatePart<U> {
        GatePart { hidden: self.hidden.map(f), output: self.output.map(f) }
    }

    fn forward<O: Ops<Floats = T>>(&self, ops: &mut O, x: &T, rows: usize) -> T {
        let hidden = ops.linear(x, rows, &self.hidden, Activation::Silu, None);
        ops.linear(&hidden, rows, &self.output, Activation::Identity, None)
    }
}
