//! The query side of a pair.

use crate::backend::cpu::dot::micro_kernel::RowBlocks;
use crate::config::MolConfig;
use crate::ops::Linear;
use crate::tensor::Tensor;

/// A query, packed for the micro-kernel.
pub struct MolQuery {
    /// (P_Q, D_P) components, or (L, D) transformed ones, packed.
    pub components: RowBlocks,
    /// (L): added to the products of transformed components.
    pub bias: Option<Vec<f32>>,
    /// (L): the query-only part of the gate, if there is one.
    pub gate: Option<Vec<f32>>,
}

impl MolQuery {
    /// A query of components (P_Q, D_P), for tables of components.
    pub fn from_components(config: &MolConfig, components: &[f32], gate: Option<Vec<f32>>) -> MolQuery {
        let (p_q, d_p) = (config.query_dot_product_groups, config.dot_product_dimension);
        MolQuery { components: RowBlocks::from_rows(components, p_q, d_p), bias: None, gate }
    }

    /// A transformed query, for tables of raw embeddings that `projection` makes components of:
    /// `<f_n, W_m x + b_m> = <W_m^T f_n, x> + <f_n, b_m>`.
    pub fn transformed(
        config: &MolConfig,
        projection: &Linear<Tensor>,
        components: &[f32],
        gate: Option<Vec<f32>>,
    ) -> MolQuery {
        let (p_x, d_p) = (config.item_dot_product_groups, config.dot_product_dimension);
        let rows = components.chunks_exact(d_p).flat_map(|f| (0..p_x).map(move |m| transform(projection, f, m)));
        let (rows, bias): (Vec<Vec<f32>>, Vec<f32>) = rows.unzip();
        let dim = projection.n_in;
        MolQuery { components: RowBlocks::from_rows(&rows.concat(), rows.len(), dim), bias: Some(bias), gate }
    }
}

/// `(W_m^T f, <f, b_m>)` for item component m.
pub fn transform(projection: &Linear<Tensor>, f: &[f32], m: usize) -> (Vec<f32>, f32) {
    let d_p = f.len();
    let dot = |row: &[f32]| row[m * d_p..(m + 1) * d_p].iter().zip(f).map(|(w, f)| w * f).sum::<f32>();
    let row = (0..projection.n_in).map(|d| dot(projection.weight.row(d))).collect();
    (row, projection.bias.as_ref().map_or(0.0, |bias| dot(bias.data())))
}
