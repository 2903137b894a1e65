//! Where a training run stands.

use serde::{Deserialize, Serialize};

use super::{EpochRecord, MeanLosses};

/// Everything beside weights and moments that a run needs to go on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunState {
    /// Steps done.
    pub step: u64,
    /// Epochs done.
    pub epoch: u32,
    /// Batches done of the next epoch.
    pub batch: usize,
    /// What was measured in these batches.
    pub sums: Sums,
    /// One for each epoch, and for each place within one where training ended.
    pub records: Vec<EpochRecord>,
    /// Which record the best model is of.
    pub best: Option<usize>,
}

/// Sums over the steps of an epoch so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sums {
    pub losses: MeanLosses,
    pub positions: u64,
    pub seconds: f64,
}

impl Sums {
    pub fn add(&mut self, losses: MeanLosses, positions: usize, seconds: f64) {
        self.losses.total += losses.total;
        self.losses.softmax += losses.softmax;
        self.losses.mi_loss += losses.mi_loss;
        self.losses.uid_embedding_l2_norm += losses.uid_embedding_l2_norm;
        self.positions += positions as u64;
        self.seconds += seconds;
    }

    /// Means over `steps`.
    pub fn means(&self, steps: usize) -> MeanLosses {
        let mean = |sum: f64| sum / steps.max(1) as f64;
        MeanLosses {
            total: mean(self.losses.total),
            softmax: mean(self.losses.softmax),
            mi_loss: mean(self.losses.mi_loss),
            uid_embedding_l2_norm: mean(self.losses.uid_embedding_l2_norm),
        }
    }
}

impl RunState {
    /// The metric of the best model so far, of those that were evaluated on all users.
    pub fn best_value(&self) -> Option<f64> {
        let record = self.records.get(self.best?)?;
        record.evaluation.as_ref().map(|evaluation| evaluation.chosen)
    }

    /// Adds a record, and says whether its model is the best one.
    pub fn push(&mut self, record: EpochRecord) -> bool {
        let value = record.evaluation.as_ref().filter(|evaluation| evaluation.is_full).map(|one| one.chosen);
        let is_best = value.is_some_and(|value| self.best_value().is_none_or(|best| value > best));
        if is_best {
            self.best = Some(self.records.len());
        }
        self.records.push(record);
        is_best
    }

    /// Evaluations on all users since the best one.
    pub fn without_gain(&self) -> usize {
        let after = self.best.map_or(0, |best| best + 1);
        let is_full = |record: &&EpochRecord| record.evaluation.as_ref().is_some_and(|evaluation| evaluation.is_full);
        self.records.iter().skip(after).filter(is_full).count()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{EvaluationRecord, Split};
    use super::*;
    use crate::metrics::Quality;

    fn record(chosen: f64, is_full: bool) -> EpochRecord {
        let evaluation = EvaluationRecord::new(Split::Test, is_full, &Quality::new(None), chosen);
        let losses = MeanLosses::default();
        EpochRecord { epoch: 1.0, step: 1, losses, positions_per_second: 1.0, evaluation: Some(evaluation) }
    }

    #[test]
    fn the_first_of_the_best_full_evaluations_counts() {
        let mut state = RunState::default();
        let pushed = [(0.1, true), (0.9, false), (0.2, true), (0.2, true), (0.3, false), (0.1, true)];
        let best: Vec<bool> = pushed.into_iter().map(|(value, is_full)| state.push(record(value, is_full))).collect();
        assert_eq!(best, [true, false, true, false, false, false]);
        assert_eq!((state.best, state.best_value(), state.without_gain()), (Some(2), Some(0.2), 2));
    }

    #[test]
    fn what_is_stored_comes_back_to_the_last_bit() {
        let mut state = RunState { step: u64::MAX, epoch: 3, batch: 7, ..RunState::default() };
        for i in 1..2000 {
            // Numbers of all sizes, with all bits in use.
            let value = (0.1f64 + f64::from(i)).powi(i % 60 - 30) / 3.0;
            state.sums.add(MeanLosses { total: value, softmax: value / 7.0, ..MeanLosses::default() }, 1, value);
            state.push(record(state.sums.losses.total, true));
        }
        let text = serde_json::to_string(&state).unwrap_or_default();
        assert!(serde_json::from_str::<RunState>(&text).is_ok_and(|read| read == state));
    }
}
