//! Inner products with the components of items of which an index keeps the raw embeddings only.

use std::ops::Range;

use crate::tables::Table;

/// What makes products with components of products with raw embeddings:
/// `<v, g> = sum_m (<W_m^T v_m, x> + <v_m, b_m>) / norm_m`, with one query row per (query, m).
pub struct Transform<'a> {
    /// (rows): <v_m, b_m>.
    pub bias: Vec<f32>,
    /// (N, P_X): 1 / norm_m.
    pub inverse_norms: &'a Table,
    /// The components m that each query is multiplied with.
    pub components: Range<usize>,
}
