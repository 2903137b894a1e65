//! The item side of a pair.

use crate::backend::cpu::dot::item_tile::ItemTile;
use crate::tables::{MolTables, Table};

/// The item side of a tile, in lanes. Scratch memory of one thread.
#[derive(Default)]
pub struct MolTile {
    columns: ItemTile,
    inverse_norms: ItemTile,
    gate: ItemTile,
    has_inverse_norms: bool,
    has_gate: bool,
}

impl MolTile {
    /// Loads the `n` items `row_of(0..n)` of the tables.
    pub fn load(&mut self, raw: &Table, mol: &MolTables, n: usize, row_of: impl Fn(usize) -> usize) {
        let columns = mol.components.as_ref().unwrap_or(raw);
        self.columns.load(columns, 0..columns.groups(), n, &row_of);
        if let Some(norms) = &mol.inverse_norms {
            self.inverse_norms.load(norms, 0..1, n, &row_of);
        }
        if let Some(gate) = &mol.gate {
            self.gate.load(gate, 0..1, n, &row_of);
        }
        self.has_inverse_norms = mol.inverse_norms.is_some();
        self.has_gate = mol.gate.is_some();
    }

    /// (P_X * D_P or D, TILE): components, or raw embeddings.
    pub(super) fn columns(&self) -> &[f32] {
        self.columns.values()
    }

    /// (P_X, TILE): inverse norms of the components, if raw embeddings are kept.
    pub(super) fn inverse_norms(&self) -> Option<&[f32]> {
        self.has_inverse_norms.then(|| self.inverse_norms.values())
    }

    /// (L, TILE): the item-only part of the gate, if there is one.
    pub fn gate(&self) -> Option<&[f32]> {
        self.has_gate.then(|| self.gate.values())
    }
}
