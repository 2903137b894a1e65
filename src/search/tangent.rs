//! Tangent MIPS: near the top of the ranking a mixture of logits is almost linear in its logits. The derivative of the score
//! with respect to each logit, gate included, averaged over the best items, gives weights t[n,m] with which
//! `sum_{n,m} t[n,m] <f_n, g_m>` = <v, (g_1, ..., g_{P_X})> with v_m = sum_n t[n,m] f_n: one inner product per item with a
//! vector that the model itself writes.

use super::first_stage::{FirstStage, MolQueries};
use crate::Result;
use crate::backend::{Columns, DeviceIndex, Scorer};
use crate::learn::{self, Sample};
use crate::tensor::Tensor;

/// Items of the sample that are scored, the best by the product of mean components, for each that the derivative is
/// averaged over.
const SCORED_PER_BEST: usize = 4;

/// (B, L): derivatives for about `candidates` candidates; those that the index has learned to predict, if it has.
///
/// The linearisation serves best where it has to decide, which is at the K'-th item and not at the first: the derivative is
/// averaged over as many items of the sample as stand for the best K' of the index.
pub(super) fn derivatives(stage: &FirstStage, mol: &MolQueries, candidates: usize) -> Result<Tensor> {
    let Some(tangents) = mol.similarity.distilled.as_ref().and_then(|distilled| distilled.tangents.as_ref()) else {
        return sampled(stage, mol, candidates);
    };
    let n_items = stage.snapshot.len();
    let best = (candidates * n_items.min(Sample::MOST)).div_ceil(n_items.max(1));
    let queries = &mol.components;
    let rows = (0..queries.rows()).flat_map(|row| tangents.derivative(queries.row(row), best)).collect();
    Ok(Tensor::trusted(vec![queries.rows(), mol.similarity.mol.config.n_logits()], rows))
}

/// (B, L): derivatives for about `candidates` candidates, averaged over the best items of a sample.
///
/// The sample is as large as makes its best items stand for the best K' of the index; how many of them are worth their time
/// depends on how much time K' leaves.
pub(super) fn sampled(stage: &FirstStage, mol: &MolQueries, candidates: usize) -> Result<Tensor> {
    let Some(sample) = stage.snapshot.sample()? else {
        let shape = vec![mol.components.rows(), mol.similarity.mol.config.n_logits()];
        return Ok(Tensor::trusted(shape.clone(), vec![0.0; shape.iter().product()]));
    };
    let index = sample.index();
    let best = (candidates / 8).clamp(16, 64);
    let scored = SCORED_PER_BEST * best;
    let size = (best * stage.snapshot.len() / candidates.max(1)).max(scored).min(sample.len());
    let promising = index.scan_first(stage.context, &mol.sums(), size, scored.min(size))?;
    let promising: Vec<Vec<u32>> = promising.iter().map(|hits| hits.iter().map(|hit| hit.position).collect()).collect();
    let scores = index.rescore(stage.context, Scorer::Mol, stage.queries, &promising)?;
    let ranked = |(positions, scores): (&Vec<u32>, Vec<f32>)| {
        let mut ranked: Vec<(f32, u32)> = scores.into_iter().zip(positions.iter().copied()).collect();
        ranked.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        ranked.into_iter().take(best).map(|(_, position)| position).collect()
    };
    let around: Vec<Vec<u32>> = promising.iter().zip(scores).map(ranked).collect();
    index.gradient(stage.queries, &around)
}

/// (B, P_X * D_P): the vector v of each query.
pub(super) fn vectors(mol: &MolQueries, derivatives: &Tensor) -> Tensor {
    let config = &mol.similarity.mol.config;
    let (p_x, d_p) = (config.item_dot_product_groups, config.dot_product_dimension);
    let n_queries = mol.components.rows();
    let mut data = vec![0.0; n_queries * p_x * d_p];
    for (query, v) in data.chunks_exact_mut((p_x * d_p).max(1)).enumerate() {
        let weights = derivatives.row(query);
        for (n, f) in mol.components.row(query).chunks_exact(d_p).enumerate() {
            for (m, v) in v.chunks_exact_mut(d_p).enumerate() {
                v.iter_mut().zip(f).for_each(|(v, f)| *v += weights[n * p_x + m] * f);
            }
        }
    }
    Tensor::trusted(vec![n_queries, p_x * d_p], data)
}

/// The vectors in the principal directions of the components, where these are known, and what to multiply them with.
pub(super) fn reduced(mol: &MolQueries, vectors: Tensor) -> (Tensor, Columns) {
    let Some(layer) = &mol.similarity.mol.principal else { return (vectors, Columns::All) };
    (learn::coordinates(layer, &vectors), Columns::Principal)
}
