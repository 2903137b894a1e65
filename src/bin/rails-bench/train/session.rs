//! A training run as a command shows it.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use rails_wgpu::backend::TrainingDevice;
use rails_wgpu::config::{LossKind, TrainConfig};
use rails_wgpu::dataset::Sequence;
use rails_wgpu::train::{
    Ending, EpochRecord, EvaluationRecord, Run, RunConfig, RunData, RunEvent, RunFolder, RunLimits, Split,
};
use rails_wgpu::{Cancel, Result};

use crate::output::{counted, outln};
use crate::progress::{self, Bar, two_digits};
use crate::report::{Machine, item_source};

/// A run, and the data that it is of.
pub struct Session {
    pub run: Run,
    /// Whether Ctrl-C has stopped it.
    pub interrupted: bool,
    sequences: Vec<Sequence>,
}

impl Session {
    /// Begins a run in a new folder.
    pub fn create(folder: &Path, config: RunConfig, data: RunData, device: &TrainingDevice) -> Result<Session> {
        let run = Run::create(folder, config, data.set(), device)?;
        Ok(Session { run, interrupted: false, sequences: data.sequences })
    }

    /// Goes on with a run.
    pub fn resume(
        folder: RunFolder,
        stored: &RunConfig,
        config: RunConfig,
        data: RunData,
        device: &TrainingDevice,
    ) -> Result<Session> {
        let run = Run::resume(folder, stored, config, data.set(), device)?;
        Ok(Session { run, interrupted: false, sequences: data.sequences })
    }

    /// What holds for the whole run, one condition per line.
    pub fn print_conditions(&self) -> Result<()> {
        let config = self.run.config();
        let (train, data) = (&config.train, &config.data);
        let split = match config.split {
            Split::Validation => {
                "validation: trained without the last two events of each user, the best model is chosen by the first of them"
            }
            _ => {
                "test: trained without the last event of each user, which also chooses the best model, as in the published tables"
            }
        };
        outln!("model     {}", config.model.summary())?;
        outln!("machine   {}", Machine::here())?;
        outln!("device    {}", config.device)?;
        outln!(
            "data      {} users, {} positions to learn from, {} items from {}",
            self.run.data().n_users(),
            self.run.data().n_positions(),
            data.items,
            item_source(&data.source)
        )?;
        outln!("split     {split}")?;
        outln!(
            "training  {} of {} of {}, {}, seed {}",
            counted(train.epochs, "epoch"),
            counted(self.run.data().n_batches(), "batch"),
            counted(train.batch_size, "user"),
            compared(train),
            train.seed
        )?;
        outln!("folder    {}", self.run.folder().path().display())?;
        if self.run.step() > 0 {
            outln!("goes on after epoch {}, step {}", self.run.epoch(), self.run.step())?;
        }
        outln!("\n{}", header(config.split))
    }

    /// Trains until the run ends, the deadline is reached or that is cancelled, with a bar and a line for each epoch.
    pub fn train(
        &mut self,
        limits: &RunLimits,
        deadline: Option<Instant>,
        cancel: &Cancel,
        is_printed: bool,
    ) -> Result<Ending> {
        let data = self.run.data();
        let (positions, epochs) = (data.n_positions() as u64, self.run.config().train.epochs);
        let batches = data.n_batches() as u64;
        let share = |step: u64| (positions as f64 * step as f64 / batches as f64) as u64;
        let steps = (epochs as u64 * batches).min(limits.max_steps.unwrap_or(u64::MAX));
        let bar = progress::share(share(steps).max(1));
        bar.add(share(self.run.step()));
        let (mut shown, mut started, mut counted) = (Instant::now(), Instant::now(), 0);
        let mut failed = None;
        let mut interrupted = false;
        let mut observe = |event: RunEvent| {
            match event {
                RunEvent::Step { step, epoch, losses, positions } => {
                    counted += positions;
                    bar.set(share(step));
                    if shown.elapsed().as_millis() >= 200 {
                        let rate = two_digits(counted as f64 / started.elapsed().as_secs_f64());
                        bar.show(format!("epoch {epoch}/{epochs}  loss {:.4}  {rate} positions/s", losses.total));
                        shown = Instant::now();
                    }
                }
                RunEvent::Evaluation { done, users } => {
                    bar.show(format!("evaluating {done}/{users} users"));
                    (started, counted) = (Instant::now(), 0);
                }
                RunEvent::Epoch { record, is_best } => {
                    let printed = || if is_printed { outln!("{}", line(record, is_best)) } else { Ok(()) };
                    failed = bar.aside(printed).err();
                }
                _ => {}
            }
            interrupted = cancel.is_cancelled();
            let is_over =
                interrupted || failed.is_some() || deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let ending = self.run.train(limits, &mut observe);
        drop(bar);
        if let Some(error) = failed {
            return Err(error);
        }
        self.interrupted = interrupted && matches!(ending, Ok(Ending::Stopped));
        ending
    }

    /// The best model on the test split, if it was chosen by another one.
    pub fn test_of_best(&self) -> Result<Option<EvaluationRecord>> {
        if self.run.config().split == Split::Test || self.run.best().is_none() {
            return Ok(None);
        }
        let bar: Bar = progress::bar(self.sequences.len() as u64, "users", "computing metrics");
        let progress = &mut |done| {
            bar.set(done as u64);
            ControlFlow::Continue(())
        };
        self.run.evaluate_best(&self.sequences, Split::Test, progress).map(Some)
    }
}

/// What each position is compared with.
fn compared(train: &TrainConfig) -> String {
    match train.loss {
        LossKind::FullSoftmax => "softmax over all items".to_string(),
        _ => format!("{} negatives", train.negatives),
    }
}

fn header(split: Split) -> String {
    format!("   epoch     step      loss  positions/s   {split}: HR@10   NDCG@10       MRR")
}

fn line(record: &EpochRecord, is_best: bool) -> String {
    let EpochRecord { epoch, step, losses, positions_per_second, .. } = record;
    let mut line = format!("{epoch:8.2} {step:8}  {:8.4} {:>12}", losses.total, two_digits(*positions_per_second));
    if let Some(evaluation) = &record.evaluation {
        let value = |name: &str| {
            let values = evaluation.values();
            values.iter().find(|(found, _)| found == name).map_or(f64::NAN, |(_, value)| *value)
        };
        let of = match (evaluation.is_full, is_best) {
            (false, _) => format!("  of {} users", evaluation.users),
            (true, true) => "  best".to_string(),
            (true, false) => String::new(),
        };
        let width = 15 + evaluation.split.to_string().len() - "test".len();
        let (hr, ndcg, mrr) = (value("HR@10"), value("NDCG@10"), value("MRR"));
        line.push_str(&format!("{hr:width$.4} {ndcg:9.4} {mrr:9.4}{of}"));
    }
    line
}
