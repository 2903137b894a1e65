//! What an index holds of its items: row-major tables, on the heap or mapped from a file.
//!
//! A table keeps the values of one item side by side, in the number format of the index. So a candidate is a few cache
//! lines, a shard file is a plain matrix, and any device can read it; scans turn a tile of items into lanes as they go.

mod lists;
mod pages;
mod table;
mod token_codes;
mod token_table;
mod values;

pub use lists::Lists;
pub use pages::Pages;
pub use table::{Table, TableParts};
pub use token_codes::{MOST_CENTROIDS, TokenCodes};
pub use token_table::TokenTable;
pub use values::{Bytes, Dtype, Foreign, Values};

use crate::error::Parameter;
use crate::model::{ItemParts, Mol};
use crate::names::names;
use crate::{Error, Result};

/// How the components g_m(x) of an item are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Form {
    /// As they are: P_X * D_P numbers per item.
    Components,
    /// Not at all: the raw embedding x and the P_X inverse norms are enough, since
    /// `<f_n, W_m x + b_m> = <W_m^T f_n, x> + <f_n, b_m>` (the transformed query). Only for linear item projections.
    Raw,
}

names!(Form, Parameter::Form, { Components: "components", Raw: "raw" });

impl Form {
    /// Whether `mol` can be scored in this form.
    pub fn suits<T>(self, mol: &Mol<T>) -> bool {
        self == Form::Components || mol.item.as_ref().is_some_and(|projection| projection.glu.is_none())
    }
}

/// What the vectors of a first stage are multiplied with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Columns {
    /// One component of every item: width D_P.
    Group(usize),
    /// All components side by side: width P_X * D_P.
    All,
    /// The mean of the components: width D_P.
    Mean,
    /// The components in their principal directions: width R.
    Principal,
}

/// The tables of some items.
#[derive(Debug)]
pub struct Tables {
    /// (N, D): raw embeddings; the mean of its token embeddings where an item has such, and where components are given as they are,
    /// these, one scale per component if they are 8-bit.
    pub raw: Table,
    /// What Mixture-of-Logits needs.
    pub mol: Option<MolTables>,
    /// What late interaction needs.
    pub tokens: Option<TokenTable>,
    /// Inverted lists, if any have been made.
    pub lists: Vec<Lists>,
}

/// The item side of a Mixture-of-Logits similarity.
#[derive(Debug)]
pub struct MolTables {
    /// (N, P_X * D_P): component embeddings, one scale per component if they are 8-bit; `None` for [`Form::Raw`], and where
    /// [`Tables::raw`] has them.
    pub components: Option<Table>,
    /// (N, P_X): inverse norms of the components before their normalisation, for [`Form::Raw`]; f32.
    pub inverse_norms: Option<Table>,
    /// (N, D_P): mean of the components, for first stages.
    pub mean: Table,
    /// (N, R): components in their principal directions, for first stages, if these are known.
    pub principal: Option<Table>,
    /// (N, L): item-only gate part, if there is one.
    pub gate: Option<Table>,
}

/// The item side of some items as a device computes it, row-major.
#[derive(Clone, Debug, Default)]
pub struct ItemSide {
    /// (n, P_X * D_P): component embeddings.
    pub components: Vec<f32>,
    /// (n, P_X): norms that the components had before their normalisation (at least eps).
    pub norms: Vec<f32>,
    /// (n, L): item-only gate part, if there is one.
    pub gate: Option<Vec<f32>>,
    /// (n, R): components in their principal directions, if these are known.
    pub principal: Option<Vec<f32>>,
}

impl ItemSide {
    /// From arrays on the host.
    pub fn new<T>(mol: &Mol<T>, parts: ItemParts<Vec<f32>>) -> ItemSide {
        let ItemParts { components, projected, gate, principal } = parts;
        let d_p = mol.config.dot_product_dimension;
        let norm = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt().max(mol.config.eps);
        let norms = match &projected {
            Some(projected) => projected.chunks_exact(d_p).map(norm).collect(),
            None => vec![1.0; components.len() / d_p],
        };
        ItemSide { components, norms, gate, principal }
    }
}

impl Tables {
    /// Empty tables for items with raw embeddings of width `dim`.
    ///
    /// # Errors
    /// If `form` does not suit `mol`.
    pub fn new<T>(dim: usize, mol: Option<&Mol<T>>, dtype: Dtype, form: Form) -> Result<Tables> {
        let given = mol.filter(|mol| mol.config.given_components).map(|mol| &mol.config);
        let raw = given.map_or((1, dim), |config| (config.item_dot_product_groups, config.dot_product_dimension));
        let mol = mol.map(|mol| {
            if !form.suits(mol) {
                let found = "one with a gated hidden layer (item_hidden), or given components";
                return Err(Error::argument(
                    Parameter::Form,
                    "`components`: the raw form is for models with a linear item projection",
                    found,
                ));
            }
            let (p_x, d_p) = (mol.config.item_dot_product_groups, mol.config.dot_product_dimension);
            let raw_form = form == Form::Raw;
            Ok(MolTables {
                components: (!raw_form && !mol.config.given_components).then(|| Table::new(p_x, d_p, dtype)),
                inverse_norms: raw_form.then(|| Table::new(1, p_x, Dtype::F32)),
                mean: Table::new(1, d_p, dtype),
                principal: mol.principal.as_ref().map(|layer| Table::new(1, layer.n_out, dtype)),
                gate: mol.gate_item.is_some().then(|| Table::new(1, mol.config.n_logits(), dtype)),
            })
        });
        Ok(Tables { raw: Table::new(raw.0, raw.1, dtype), mol: mol.transpose()?, tokens: None, lists: Vec::new() })
    }

    /// Empty tables for items with token embeddings of width `dim`.
    pub fn of_tokens(dim: usize, dtype: Dtype) -> Tables {
        let tokens = Some(TokenTable::new(dim, dtype));
        Tables { raw: Table::new(1, dim, dtype), mol: None, tokens, lists: Vec::new() }
    }

    /// Appends items of token embeddings: their means (n, D), and their vectors.
    pub fn append_tokens<'a>(&mut self, means: &[f32], items: impl Iterator<Item = &'a [f32]>) {
        self.raw.append(means);
        if let Some(tokens) = &mut self.tokens {
            items.for_each(|vectors| tokens.append(vectors));
        }
    }

    /// Whether there are centroids of token embeddings.
    pub fn has_centroids(&self) -> bool {
        self.tokens.as_ref().is_some_and(|tokens| tokens.codes.is_some())
    }

    /// Appends items: raw embeddings (n, D) and, if the similarity is Mixture-of-Logits, their item side.
    pub fn append(&mut self, raw: &[f32], side: Option<&ItemSide>) {
        let are_components = self.raw_components().is_some();
        self.raw.append(side.filter(|_| are_components).map_or(raw, |side| &side.components));
        let (Some(tables), Some(side)) = (&mut self.mol, side) else { return };
        if let Some(components) = &mut tables.components {
            components.append(&side.components);
        }
        if let Some(norms) = &mut tables.inverse_norms {
            norms.append(&side.norms.iter().map(|norm| 1.0 / norm).collect::<Vec<f32>>());
        }
        let n_components = side.norms.len() * self.raw.width() / raw.len().max(1);
        tables.mean.append(&means(&side.components, n_components, tables.mean.width()));
        for (table, rows) in [(&mut tables.gate, &side.gate), (&mut tables.principal, &side.principal)] {
            if let (Some(table), Some(rows)) = (table, rows) {
                table.append(rows);
            }
        }
    }

    /// Copies the item at `position` of tables made for the same similarity and form.
    pub fn append_row_of(&mut self, other: &Tables, position: usize) {
        self.raw.append_row_of(&other.raw, position);
        if let (Some(to), Some(from)) = (&mut self.tokens, &other.tokens) {
            to.append_item_of(from, position);
        }
        let (Some(to), Some(from)) = (&mut self.mol, &other.mol) else { return };
        to.mean.append_row_of(&from.mean, position);
        let optional = [
            (&mut to.components, &from.components),
            (&mut to.inverse_norms, &from.inverse_norms),
            (&mut to.gate, &from.gate),
            (&mut to.principal, &from.principal),
        ];
        for (to, from) in optional {
            if let (Some(to), Some(from)) = (to, from) {
                to.append_row_of(from, position);
            }
        }
    }

    /// Makes room for `rows` more items.
    pub fn reserve(&mut self, rows: usize) {
        self.each_mut(|table| table.reserve(rows));
    }

    /// Moves the items: item `i` becomes what item `order[i]` was. Inverted lists are made afterwards.
    pub fn reorder(&mut self, order: &[usize]) {
        self.each_mut(|table| table.reorder(order));
        if let Some(tokens) = &mut self.tokens {
            tokens.reorder(order);
        }
    }

    fn each_mut(&mut self, mut change: impl FnMut(&mut Table)) {
        change(&mut self.raw);
        if let Some(MolTables { components, inverse_norms, mean, principal, gate }) = &mut self.mol {
            change(mean);
            [components, inverse_norms, principal, gate].into_iter().flatten().for_each(change);
        }
    }

    /// N: number of items.
    pub fn len(&self) -> usize {
        self.raw.rows()
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number format.
    pub fn dtype(&self) -> Dtype {
        self.raw.dtype()
    }

    /// How components are kept.
    pub fn form(&self) -> Form {
        match &self.mol {
            Some(MolTables { inverse_norms: Some(_), .. }) => Form::Raw,
            _ => Form::Components,
        }
    }

    /// (N, P_X * D_P): component embeddings, if they are kept.
    pub fn components(&self) -> Option<&Table> {
        self.mol.as_ref().and_then(|mol| mol.components.as_ref()).or_else(|| self.raw_components())
    }

    /// The raw embeddings, if they are the components.
    fn raw_components(&self) -> Option<&Table> {
        self.mol.as_ref().filter(|mol| mol.components.is_none() && mol.inverse_norms.is_none()).map(|_| &self.raw)
    }

    /// D_P; 0 if the similarity is not Mixture-of-Logits.
    pub fn component_width(&self) -> usize {
        self.mol.as_ref().map_or(0, |mol| mol.mean.width())
    }

    /// P_X; 0 if components are not kept.
    pub fn n_components(&self) -> usize {
        self.components().map_or(0, Table::groups)
    }

    /// Columns of one item as f32 into `out`. Components that are not kept read as zeros.
    pub fn read_columns(&self, columns: Columns, position: usize, out: &mut [f32]) {
        out.fill(0.0);
        let Some(mol) = &self.mol else { return };
        match (columns, self.components()) {
            (Columns::Mean, _) => mol.mean.read_row(position, out),
            (Columns::Principal, _) => {
                if let Some(principal) = &mol.principal {
                    principal.read_row(position, out);
                }
            }
            (Columns::All, Some(components)) => components.read_row(position, out),
            (Columns::Group(group), Some(components)) => {
                let mut row = vec![0.0; components.width()];
                components.read_row(position, &mut row);
                out.copy_from_slice(&row[group * out.len()..(group + 1) * out.len()]);
            }
            (_, None) => {}
        }
    }

    /// Every table of N rows by name.
    pub fn named(&self) -> Vec<(&'static str, &Table)> {
        let mut named = vec![("raw", &self.raw)];
        if let Some(mol) = &self.mol {
            let optional = [
                ("components", &mol.components),
                ("inverse_norms", &mol.inverse_norms),
                ("principal", &mol.principal),
                ("gate", &mol.gate),
            ];
            named.extend(optional.into_iter().filter_map(|(name, table)| Some((name, table.as_ref()?))));
            named.push(("mean", &mol.mean));
        }
        named
    }

    /// Bytes of all values and scales.
    pub fn bytes(&self) -> u64 {
        let tables: u64 = self.named().iter().map(|(_, table)| table.bytes()).sum();
        let tokens = self.tokens.as_ref().map_or(0, TokenTable::bytes);
        tables + tokens + self.lists.iter().map(Lists::bytes).sum::<u64>()
    }
}

/// (n, D_P): mean of the components (n, P_X, D_P) of each item.
fn means(components: &[f32], p_x: usize, d_p: usize) -> Vec<f32> {
    let mut means = Vec::with_capacity(components.len() / p_x.max(1));
    for item in components.chunks_exact((p_x * d_p).max(1)) {
        means.extend((0..d_p).map(|j| item.iter().skip(j).step_by(d_p).sum::<f32>() / p_x as f32));
    }
    means
}
