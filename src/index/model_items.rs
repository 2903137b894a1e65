//! The items of a model: rows of its table.

use crate::Result;
use crate::model::Model;
use crate::tensor::Tensor;

/// Rows `ids` of the model's item table, as its similarity wants them.
pub(super) fn item_embeddings(model: &Model, ids: &[u32]) -> Result<Tensor> {
    let embeddings = model.item_embeddings(ids)?;
    Ok(match model.config.item_l2_norm {
        true => l2_normalised(&embeddings, model.config.l2_norm_eps),
        false => embeddings,
    })
}

/// Rows of `matrix` divided by their l2 norm, clamped from below at `eps`.
pub(super) fn l2_normalised(matrix: &Tensor, eps: f32) -> Tensor {
    let mut data = Vec::with_capacity(matrix.data().len());
    for row in matrix.data().chunks_exact(matrix.width()) {
        let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt().max(eps);
        data.extend(row.iter().map(|x| x / norm));
    }
    Tensor::trusted(matrix.shape().to_vec(), data)
}
