//! A trainer on whichever device a run has.

use super::{Losses, TrainBatch, TrainState, Trainer};
use crate::Result;
use crate::backend::{TrainingDevice, TrainingOps, WithTrainingOps};
use crate::config::TrainConfig;
use crate::model::Model;

/// A [`Trainer`] of operations of any type.
pub(super) trait AnyTrainer: Send {
    /// As [`Trainer::step`], with drawn negatives.
    fn step(&mut self, batch: &TrainBatch) -> Result<Losses>;

    /// As [`Trainer::model`].
    fn model(&mut self) -> Result<Model>;

    /// As [`Trainer::state`].
    fn state(&mut self) -> Result<TrainState>;
}

/// What a training begins with.
#[derive(Clone, Copy)]
pub(super) enum Start<'a> {
    /// Weights.
    Fresh(&'a Model),
    /// A state that it was left in.
    Resumed(&'a TrainState),
}

/// A trainer on `device`; the rest is as for [`Trainer::new`].
///
/// # Errors
/// As [`Trainer::new`] and [`Trainer::resume`].
pub(super) fn trainer_on(
    device: &TrainingDevice,
    start: Start,
    config: &TrainConfig,
    item_counts: &[u32],
) -> Result<Box<dyn AnyTrainer>> {
    device.run(New { start, config, item_counts })
}

struct New<'a> {
    start: Start<'a>,
    config: &'a TrainConfig,
    item_counts: &'a [u32],
}

impl WithTrainingOps for New<'_> {
    type Output = Result<Box<dyn AnyTrainer>>;

    fn with<B: TrainingOps<Floats: Send + 'static, Ints: 'static> + Send + 'static>(self, ops: B) -> Self::Output {
        let New { start, config, item_counts } = self;
        Ok(Box::new(match start {
            Start::Fresh(model) => Trainer::new(ops, model, config, Some(item_counts))?,
            Start::Resumed(state) => Trainer::resume(ops, state, config, Some(item_counts))?,
        }))
    }
}

impl<B: TrainingOps<Floats: Send + 'static, Ints: 'static> + Send> AnyTrainer for Trainer<B> {
    fn step(&mut self, batch: &TrainBatch) -> Result<Losses> {
        Trainer::step(self, batch, None)
    }

    fn model(&mut self) -> Result<Model> {
        Trainer::model(self)
    }

    fn state(&mut self) -> Result<TrainState> {
        Trainer::state(self)
    }
}
