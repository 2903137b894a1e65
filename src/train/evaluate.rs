//! How good a model is while it is trained.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::Split;
use crate::backend::Backend;
use crate::dataset::Sequence;
use crate::eval::{Evaluator, Protocol};
use crate::metrics::Quality;
use crate::model::Model;
use crate::search::{Algorithm, Searcher};
use crate::{Error, Result};

/// Users with an event to predict and one before it, as `split` has them: the last event is the target.
pub(super) fn targets_of(sequences: &[Sequence], split: Split) -> Vec<Sequence> {
    let cut = |sequence: &Sequence| {
        // One of the events that are held out is the target.
        let end = (sequence.len() + 1).checked_sub(split.held_out()).filter(|&end| end >= 2)?;
        Some(Sequence {
            user_id: sequence.user_id,
            item_ids: sequence.item_ids[..end].to_vec(),
            ratings: Vec::new(),
            timestamps: sequence.timestamps[..end].to_vec(),
        })
    };
    sequences.iter().filter_map(cut).collect()
}

/// Ranks of the targets of `users` among `items`, by exact search in the reference protocol. `progress` is told how many users
/// are done, and may end the evaluation.
///
/// # Errors
/// [`Error::Cancelled`] if `progress` ended it; or as [`Evaluator::run`].
pub(super) fn evaluate(
    model: &Model,
    backend: Arc<dyn Backend>,
    items: &[u32],
    users: &[Sequence],
    batch_size: usize,
    mut progress: impl FnMut(usize) -> ControlFlow<()>,
) -> Result<Quality> {
    let searcher = Searcher::builder().model(model, items).backend(backend).build()?;
    let k = Protocol::Reference.depth(1, items.len())?;
    let evaluator = Evaluator { searcher: &searcher, conditions: &[], protocol: Protocol::Reference, k, batch_size };
    let mut is_ended = false;
    let evaluations = evaluator.run(&[Algorithm::Exact], users, |done| {
        let flow = progress(done);
        is_ended = flow.is_break() && done < users.len();
        flow
    })?;
    match evaluations.into_iter().next() {
        Some(evaluation) if !is_ended => Ok(evaluation.quality),
        _ => Err(Error::Cancelled),
    }
}
