//! How many bytes of the tables a search reads for each item.

use crate::backend::{Columns, Scorer};
use crate::tables::{MolTables, Table, Tables, TokenTable};

/// Bytes of one item that a scorer reads.
pub(super) fn of_scorer(tables: &Tables, scorer: Scorer) -> u64 {
    match (&tables.mol, scorer) {
        (None, Scorer::Centroids) => {
            let codes = tables.tokens.as_ref().and_then(|tokens| tokens.codes.as_ref());
            codes.map_or_else(|| of_scorer(tables, Scorer::MaxSim), |codes| codes.bytes() / tables.len().max(1) as u64)
        }
        (None, Scorer::MaxSim) => tables.tokens.as_ref().map_or(0, TokenTable::bytes) / tables.len().max(1) as u64,
        (None, _) | (_, Scorer::Dot | Scorer::MaxSim | Scorer::Centroids) => of(&tables.raw),
        (Some(mol), Scorer::Bound) => of_components(tables, mol),
        (Some(mol), Scorer::Mol | Scorer::Distilled) => of_components(tables, mol) + mol.gate.as_ref().map_or(0, of),
    }
}

/// Bytes of these columns of one item.
pub(super) fn of_columns(tables: &Tables, columns: Columns) -> u64 {
    let Some(mol) = &tables.mol else { return of(&tables.raw) };
    match (columns, tables.components()) {
        (Columns::Mean, _) => of(&mol.mean),
        (Columns::Principal, _) => mol.principal.as_ref().map_or(0, of),
        (Columns::Group(_), Some(components)) => of(components) / components.groups().max(1) as u64,
        (Columns::All, _) | (Columns::Group(_), None) => of_components(tables, mol),
    }
}

/// Bytes of all that components are, or are computed from.
fn of_components(tables: &Tables, mol: &MolTables) -> u64 {
    mol.components.as_ref().map_or_else(|| of(&tables.raw) + mol.inverse_norms.as_ref().map_or(0, of), of)
}

/// Bytes of one row.
pub(super) fn of(table: &Table) -> u64 {
    table.bytes() / table.rows().max(1) as u64
}
