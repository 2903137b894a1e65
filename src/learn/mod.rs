//! What an index learns: from its items a sample and their principal directions, from queries a cheaper gate and tangents.
//!
//! All of it is computed on the host, from the items of the sample.

mod gate;
mod learning;
mod least_squares;
mod principal;
mod query_side;
mod sample;
mod tangents;

pub(crate) use learning::Learning;
pub(crate) use principal::{coordinates, directions, has_directions};
pub(crate) use query_side::query_components;
pub use sample::Sample;

use crate::Result;
use crate::backend::QueryBatch;
use crate::model::{Distilled, Mol};
use crate::tensor::Tensor;

/// Fits a gate and tangents of `mol` to `queries`.
///
/// # Errors
/// If there is no query, numbers do not suit, or nobody wants it any more.
pub(crate) fn distill(
    mol: &Mol<Tensor>,
    sample: &Sample,
    queries: &QueryBatch,
    learning: &Learning,
) -> Result<Distilled> {
    let cross = gate::fit(mol, sample, queries, learning)?;
    let tangents = tangents::fit(mol, sample, queries, learning)?;
    Ok(Distilled { cross, tangents: Some(tangents) })
}
