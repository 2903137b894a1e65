//! A training run in its folder: steps, evaluations, saving, going on.

use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use super::evaluate::{evaluate, targets_of};
use super::on_device::{AnyTrainer, Start, trainer_on};
use super::run_data::{TrainSet, n_item_rows};
use super::sites;
use super::state::{RunState, Sums};
use super::{EpochRecord, EvaluationRecord, MeanLosses, RunConfig, RunFolder, Split, TrainData, fresh_model};
use crate::backend::TrainingDevice;
use crate::checkpoint::Checkpoint;
use crate::config::TrainConfig;
use crate::dataset::Sequence;
use crate::error::Parameter;
use crate::model::Model;
use crate::random::Random;
use crate::{Error, Result};

/// When a run ends and is saved, beside the end of its last epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct RunLimits {
    /// Ends after this many steps, counted from the beginning of the run, with an evaluation.
    pub max_steps: Option<u64>,
    /// Ends after this many evaluations on all users without a better one.
    pub patience: Option<usize>,
    /// How often the state is saved within an epoch.
    pub save_every: Duration,
}

/// What a run has just done.
#[derive(Debug)]
#[non_exhaustive]
pub enum RunEvent<'a> {
    /// A step.
    Step {
        /// Steps done.
        step: u64,
        /// The epoch it was of, from 1.
        epoch: u32,
        /// Its losses.
        losses: MeanLosses,
        /// Supervised positions of its batch.
        positions: usize,
    },
    /// A part of an evaluation.
    Evaluation {
        /// Users done.
        done: usize,
        /// Users in all.
        users: usize,
    },
    /// The last step of an epoch, or of the run, and the evaluation after it.
    Epoch {
        /// What was measured.
        record: &'a EpochRecord,
        /// Whether its model is the best one so far.
        is_best: bool,
    },
}

/// Why a run has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// All epochs are done.
    Epochs,
    /// [`RunLimits::max_steps`].
    MaxSteps,
    /// [`RunLimits::patience`].
    Patience,
    /// Whoever was told of an event has asked for it; the run can go on from its folder.
    Stopped,
}

/// A training run in a folder. [`Run::create`] begins one, [`Run::train`] carries it out, [`Run::resume`] goes on with it.
pub struct Run {
    folder: RunFolder,
    config: RunConfig,
    data: TrainData,
    /// Users as they are evaluated.
    users: Vec<Sequence>,
    items: Vec<u32>,
    device: TrainingDevice,
    trainer: Box<dyn AnyTrainer>,
    state: RunState,
}

impl Default for RunLimits {
    fn default() -> RunLimits {
        RunLimits { max_steps: None, patience: None, save_every: Duration::from_secs(600) }
    }
}

impl RunLimits {
    fn is_reached(&self, step: u64) -> bool {
        self.max_steps.is_some_and(|most| step >= most)
    }

    /// Sets [`RunLimits::max_steps`].
    #[must_use]
    pub fn with_max_steps(self, max_steps: impl Into<Option<u64>>) -> RunLimits {
        RunLimits { max_steps: max_steps.into(), ..self }
    }

    /// Sets [`RunLimits::patience`].
    #[must_use]
    pub fn with_patience(self, patience: impl Into<Option<usize>>) -> RunLimits {
        RunLimits { patience: patience.into(), ..self }
    }

    /// Sets [`RunLimits::save_every`].
    #[must_use]
    pub fn with_save_every(self, save_every: Duration) -> RunLimits {
        RunLimits { save_every, ..self }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Ending::Epochs => "all epochs done",
            Ending::MaxSteps => "the largest number of steps reached",
            Ending::Patience => "no better evaluation for as long as patience lasts",
            Ending::Stopped => "stopped",
        })
    }
}

impl Run {
    /// Begins a run in the new or empty folder `path`, with fresh weights, on `device`, whose name goes into the configuration.
    ///
    /// # Errors
    /// If the folder holds something, the configuration is out of range, the device does not train such models, or as
    /// [`TrainData::new`].
    pub fn create(path: &Path, mut config: RunConfig, set: TrainSet, device: &TrainingDevice) -> Result<Run> {
        config.device = device.name();
        config.model.validate()?;
        config.train.validate()?;
        let data = data_of(&config, set)?;
        let trainer = fresh_trainer(&config, &data, set.items, device)?;
        let folder = RunFolder::create(path, &config)?;
        Run::assemble(folder, config, data, set, (device, trainer), RunState::default())
    }

    /// Goes on with the run in `folder`, on the same data, from its last saved state. `config` may differ from `stored`, what
    /// [`RunFolder::open`] has read, as far as [`RunConfig::check_same`] allows. On [`RunConfig::device`] it arrives at the same bits as
    /// without a break; another device goes on with other roundings.
    ///
    /// # Errors
    /// If the folder is not that of a run, the configuration or the data are others, or a file is damaged.
    pub fn resume(
        folder: RunFolder,
        stored: &RunConfig,
        mut config: RunConfig,
        set: TrainSet,
        device: &TrainingDevice,
    ) -> Result<Run> {
        config.device = device.name();
        stored.check_same(&config, &folder.config_file())?;
        let data = data_of(&config, set)?;
        let (trainer, state) = match folder.read_state(&config.model)? {
            Some((state, trained)) => {
                let counts = item_counts(&data, set.items);
                (trainer_on(device, Start::Resumed(&trained), &config.train, &counts)?, state)
            }
            None => (fresh_trainer(&config, &data, set.items, device)?, RunState::default()),
        };
        if *stored != config {
            folder.write_config(&config)?;
        }
        Run::assemble(folder, config, data, set, (device, trainer), state)
    }

    fn assemble(
        folder: RunFolder,
        config: RunConfig,
        data: TrainData,
        set: TrainSet,
        (device, trainer): (&TrainingDevice, Box<dyn AnyTrainer>),
        state: RunState,
    ) -> Result<Run> {
        let device = device.clone();
        let users = targets_of(set.sequences, config.split);
        Ok(Run { folder, config, data, users, items: set.items.to_vec(), device, trainer, state })
    }

    /// Its folder.
    pub fn folder(&self) -> &RunFolder {
        &self.folder
    }

    /// Its configuration.
    pub fn config(&self) -> &RunConfig {
        &self.config
    }

    /// The users and positions that it learns from.
    pub fn data(&self) -> &TrainData {
        &self.data
    }

    /// Steps done.
    pub fn step(&self) -> u64 {
        self.state.step
    }

    /// Epochs done.
    pub fn epoch(&self) -> u32 {
        self.state.epoch
    }

    /// What was measured so far.
    pub fn records(&self) -> &[EpochRecord] {
        &self.state.records
    }

    /// What was measured of the best model, if there is one yet.
    pub fn best(&self) -> Option<&EpochRecord> {
        self.state.records.get(self.state.best?)
    }

    /// Trains until the run ends. `observe` is told what is done, and may stop it; the state is saved then.
    ///
    /// # Errors
    /// If a loss or a weight is no finite number any more, an evaluation fails, or a file cannot be written. The folder keeps the
    /// last saved state.
    pub fn train(
        &mut self,
        limits: &RunLimits,
        observe: &mut dyn FnMut(RunEvent) -> ControlFlow<()>,
    ) -> Result<Ending> {
        let mut saved = Instant::now();
        loop {
            if let Some(ending) = self.ending(limits) {
                return Ok(ending);
            }
            let epoch = self.data.epoch(self.state.epoch);
            while self.state.batch < self.data.n_batches() && !limits.is_reached(self.state.step) {
                let batch = epoch.batch(self.state.batch)?;
                let started = Instant::now();
                let losses = MeanLosses::from(self.trainer.step(&batch)?);
                self.state.sums.add(losses, batch.targets.len(), started.elapsed().as_secs_f64());
                self.state.step += 1;
                self.state.batch += 1;
                let (step, positions) = (self.state.step, batch.targets.len());
                let event = RunEvent::Step { step, epoch: self.state.epoch + 1, losses, positions };
                if observe(event).is_break() {
                    self.folder.write_state(&self.state, &self.trainer.state()?)?;
                    return Ok(Ending::Stopped);
                }
                if saved.elapsed() >= limits.save_every {
                    self.folder.write_state(&self.state, &self.trainer.state()?)?;
                    saved = Instant::now();
                }
            }
            let flow = self.end_epoch(observe)?;
            saved = Instant::now();
            if flow.is_break() && self.ending(limits).is_none() {
                return Ok(Ending::Stopped);
            }
        }
    }

    /// Why there is nothing left to do, if so.
    fn ending(&self, limits: &RunLimits) -> Option<Ending> {
        let is_recorded = self.state.records.last().is_some_and(|record| record.step == self.state.step);
        if self.state.epoch as usize >= self.config.train.epochs {
            Some(Ending::Epochs)
        } else if limits.is_reached(self.state.step) && is_recorded {
            Some(Ending::MaxSteps)
        } else if limits.patience.is_some_and(|patience| self.state.without_gain() >= patience) {
            Some(Ending::Patience)
        } else {
            None
        }
    }

    /// Evaluates, records and saves, after the last batch of an epoch or of the run.
    fn end_epoch(&mut self, observe: &mut dyn FnMut(RunEvent) -> ControlFlow<()>) -> Result<ControlFlow<()>> {
        let model = self.trainer.model()?;
        let is_whole = self.state.batch == self.data.n_batches();
        let done = self.state.epoch + u32::from(is_whole);
        let schedule = &self.config.train.evaluation;
        let is_full = !is_whole
            || done as usize == self.config.train.epochs
            || (done as usize).is_multiple_of(schedule.full_every);
        let users = if is_full { None } else { Some(self.some_users(schedule.partial_batches * schedule.batch_size)) };
        let evaluation = match self.evaluated(&model, users.as_deref().unwrap_or(&self.users), is_full, observe) {
            Err(Error::Cancelled) => {
                self.folder.write_state(&self.state, &self.trainer.state()?)?;
                return Ok(ControlFlow::Break(()));
            }
            evaluation => evaluation?,
        };
        let part = if is_whole { 0.0 } else { self.state.batch as f64 / self.data.n_batches() as f64 };
        let sums = self.state.sums;
        let is_best = self.state.push(EpochRecord {
            epoch: f64::from(done) + part,
            step: self.state.step,
            losses: sums.means(self.state.batch),
            positions_per_second: sums.positions as f64 / sums.seconds.max(f64::MIN_POSITIVE),
            evaluation,
        });
        if is_best {
            self.folder.write_best(&model)?;
        }
        if is_whole {
            (self.state.epoch, self.state.batch, self.state.sums) = (done, 0, Sums::default());
        }
        self.folder.write_state(&self.state, &self.trainer.state()?)?;
        match self.state.records.last() {
            Some(record) => Ok(observe(RunEvent::Epoch { record, is_best })),
            None => Ok(ControlFlow::Continue(())),
        }
    }

    fn evaluated(
        &self,
        model: &Model,
        users: &[Sequence],
        is_full: bool,
        observe: &mut dyn FnMut(RunEvent) -> ControlFlow<()>,
    ) -> Result<Option<EvaluationRecord>> {
        if users.is_empty() {
            return Ok(None);
        }
        let batch_size = self.config.train.evaluation.batch_size;
        let quality = evaluate(model, self.device.backend().clone(), &self.items, users, batch_size, |done| {
            observe(RunEvent::Evaluation { done, users: users.len() })
        })?;
        let chosen = self.config.metric.of(&quality);
        Ok(Some(EvaluationRecord::new(self.config.split, is_full, &quality, chosen)))
    }

    /// The quality of the best model on another split: `sequences` are those of the run.
    ///
    /// # Errors
    /// If there is no best model yet, or as [`Run::train`].
    pub fn evaluate_best(
        &self,
        sequences: &[Sequence],
        split: Split,
        progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<EvaluationRecord> {
        let model = Model::load(&Checkpoint::open(self.folder.best_file())?, self.config.model.clone())?;
        let users = targets_of(sequences, split);
        let batch_size = self.config.train.evaluation.batch_size;
        let quality = evaluate(&model, self.device.backend().clone(), &self.items, &users, batch_size, progress)?;
        Ok(EvaluationRecord::new(split, true, &quality, self.config.metric.of(&quality)))
    }

    /// Some of the users, others after each epoch.
    fn some_users(&self, n: usize) -> Vec<Sequence> {
        let mut order: Vec<usize> = (0..self.users.len()).collect();
        Random::new(self.config.train.seed).stream(self.state.epoch, sites::EVALUATED_USERS).shuffle(&mut order);
        order.into_iter().take(n).map(|user| self.users[user].clone()).collect()
    }
}

fn fresh_trainer(
    config: &RunConfig,
    data: &TrainData,
    items: &[u32],
    device: &TrainingDevice,
) -> Result<Box<dyn AnyTrainer>> {
    let model = fresh_model(&config.model, data.n_item_rows(), config.train.seed)?;
    trainer_on(device, Start::Fresh(&model), &config.train, &item_counts(data, items))
}

/// (item rows): how often each item is a target, at least once if negatives are drawn of it and never else.
fn item_counts(data: &TrainData, items: &[u32]) -> Vec<u32> {
    let targets = data.target_counts();
    let mut counts = vec![0; targets.len()];
    items.iter().for_each(|&id| counts[id as usize] = targets[id as usize].max(1));
    counts
}

/// The data of a run; an item table has a row for each item that occurs or can be found.
fn data_of(config: &RunConfig, set: TrainSet) -> Result<TrainData> {
    if set.items.is_empty() {
        return Err(Error::argument(Parameter::ItemIds, "at least one item", "none"));
    }
    let TrainConfig { batch_size, seed, mask_probability, .. } = config.train;
    let data = TrainData::new(set.sequences, config.split, &config.model, n_item_rows(set)?, batch_size, seed)?;
    Ok(data.with_mask_probability(mask_probability))
}
