//! Tables of raw embeddings that stand for components.

use std::ops::Range;

use crate::tables::Table;

/// How products with raw embeddings become products with components:
/// `<v, g> = sum_m (<W_m^T v_m, x> + <v_m, b_m>) / norm_m`, with one query row per (query, m).
pub struct Transform<'a> {
    /// (rows): <v_m, b_m>.
    pub bias: Vec<f32>,
    /// (N, P_X): 1 / norm_m.
    pub inverse_norms: &'a Table,
    /// Components m of each query.
    pub components: Range<usize>,
}
