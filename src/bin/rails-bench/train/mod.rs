//! `rails-bench train`.

mod data;
mod session;

use std::io::Write;
use std::time::{Duration, Instant};

use clap::Args;
use clap::builder::{PossibleValuesParser, RangedU64ValueParser};
use rails_wgpu::backend::{TrainingDevice, select};
use rails_wgpu::config::{LossKind, ModelConfig, PRESETS, TrainConfig, preset};
use rails_wgpu::metrics::Metric;
use rails_wgpu::train::{Ending, EpochRecord, EvaluationRecord, RunConfig, RunFolder, RunLimits, Split};
use rails_wgpu::{Error, Result, atomic};
use serde_json::{Value, json};

use crate::arguments;
use crate::exit_code::ExitCode;
use crate::interrupt;
use crate::json_output::JsonOutput;
use crate::output::outln;
use crate::paths::{Input, Output};
use crate::progress::note;
use crate::report::training_page;
use data::mention_other_data;
pub use data::{TrainDataArgs, read_data};
pub use session::Session;

/// What the first Ctrl-C says.
pub const STOPPING: &str = "stopping after this step; the run is saved";

#[derive(Args)]
pub struct TrainArgs {
    #[arg(long, value_name = "NAME", conflicts_with_all = ["config", "resume"],
        value_parser = PossibleValuesParser::new(PRESETS.iter().map(|(name, _)| *name)),
        help = "A published configuration, DATA/MODEL; this, --config or --resume must be given")]
    preset: Option<String>,
    /// Hyper-parameters of model and training: a .gin file of the reference
    #[arg(long, conflicts_with = "resume")]
    config: Option<Input>,
    /// Go on with the run in this folder, from where it was saved last
    #[arg(long, value_name = "FOLDER", conflicts_with = "output")]
    resume: Option<Input>,
    #[command(flatten)]
    data: TrainDataArgs,
    /// The folder to write: model.safetensors (the best model), last.safetensors, metrics.csv, config.json and what --resume needs
    #[arg(short, long, value_name = "FOLDER")]
    output: Option<Output>,
    /// Hold out the last event but one of each user too, evaluate on it, and choose the best model by it
    #[arg(long, conflicts_with = "resume")]
    validation: bool,
    /// What the best model is chosen by: hr@N, ndcg@N or mrr
    #[arg(long, default_value = "hr@10", conflicts_with = "resume")]
    metric: Metric,
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    device: TrainDeviceArgs,
    /// Also write what was measured as JSON to this file; `-`: to standard output, instead of the lines
    #[arg(long, value_name = "FILE")]
    json: Option<Output>,
    /// Also write a page with curves of losses and metrics by epoch to this file
    #[arg(long, value_name = "FILE")]
    html: Option<Output>,
}

/// What may differ from the preset or the file.
#[derive(Args)]
pub struct ChangeArgs {
    /// Passes over all users [default: the configuration's]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub epochs: Option<usize>,
    /// Seed of weights, negatives, dropout and order of users [default: the configuration's]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Users per batch [default: the configuration's]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub batch_size: Option<usize>,
    /// Negatives per position of the sampled softmax [default: the configuration's]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub negatives: Option<usize>,
    /// Learning rate of AdamW [default: the configuration's]
    #[arg(long, value_name = "RATE")]
    pub learning_rate: Option<f32>,
    /// Scale the gradient of a step down to this norm where it is larger [default: no limit]
    #[arg(long, value_name = "NORM")]
    pub max_gradient_norm: Option<f32>,
    /// Let a step change only those rows of the item table that its batch has: faster with many items
    #[arg(long)]
    pub lazy_item_updates: bool,
    /// Evaluate on all users after every N-th epoch and the last, and not after the others [default: the configuration's]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub eval_every: Option<usize>,
    /// Dropout masks for an item of a batch, whose positives and negatives take turns; 0: one for each of them, as in the reference,
    /// which takes gigabytes of memory [default: 8]
    #[arg(long, value_name = "N")]
    pub item_dropout_masks: Option<usize>,
}

/// Where to train.
#[derive(Args)]
pub struct TrainDeviceArgs {
    /// Device that trains and evaluates: `auto`, `cpu`, `gpu`, or part of a device's name, API and driver (see `rails-bench devices`)
    /// [default: auto; of a run that goes on, the device that it began on, where it arrives at the same bits]
    #[arg(long, env = "RAILS_DEVICE")]
    device: Option<String>,
}

/// When to end.
#[derive(Args)]
pub struct LimitArgs {
    /// End after so many steps, counted from the beginning of the run, with an evaluation
    #[arg(long, value_name = "N")]
    max_steps: Option<u64>,
    /// Save and stop after so many minutes; the run can be resumed
    #[arg(long, value_name = "MINUTES", value_parser = minutes)]
    time_limit: Option<Duration>,
    /// End after so many evaluations in a row without a better one [default: never]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    patience: Option<usize>,
    /// Save within epochs too, every so many minutes
    #[arg(long, value_name = "MINUTES", default_value = "10", value_parser = minutes)]
    save_every: Duration,
}

fn minutes(text: &str) -> Result<Duration, String> {
    let minutes = text.parse::<f64>().ok().filter(|minutes| *minutes >= 0.0);
    let duration = minutes.and_then(|minutes| Duration::try_from_secs_f64(60.0 * minutes).ok());
    duration.ok_or_else(|| "expected a number of minutes, such as 90 or 0.5".to_string())
}

pub fn run(args: &TrainArgs) -> Result<ExitCode> {
    let json = args.json.as_deref().map(JsonOutput::open).transpose()?;
    if let Some(html) = &args.html {
        atomic::check(html)?;
    }
    let mut session = match &args.resume {
        Some(folder) => resume(args, folder)?,
        None => begin(args)?,
    };
    let is_printed = !matches!(json, Some(JsonOutput::Stdout));
    if is_printed {
        session.print_conditions()?;
    }
    let cancel = interrupt::cancel(STOPPING);
    let ending = session.train(&args.limits.limits(), args.limits.deadline(), &cancel, is_printed)?;
    let test = if ending == Ending::Stopped { None } else { session.test_of_best()? };
    if is_printed {
        print_best(&session, test.as_ref())?;
    }
    let report = report(&session, ending, test.as_ref());
    if let Some(output) = json {
        output.write(&format!("{report:#}\n"))?;
    }
    if let Some(html) = &args.html {
        let command = arguments::command_line();
        let page =
            training_page(session.run.config(), session.run.records(), session.run.best(), test.as_ref(), &command);
        atomic::write(html, |file| file.write_all(page.as_bytes()))?;
    }
    if ending == Ending::Stopped {
        note!("to go on: rails-bench train --resume {}", session.run.folder().path().display());
    }
    Ok(ExitCode::of_interrupted(session.interrupted))
}

impl TrainDeviceArgs {
    /// Opens it to train `model`, in a new run or the one that was `stored`.
    pub fn open(&self, stored: Option<&RunConfig>, model: &ModelConfig) -> Result<TrainingDevice> {
        let before = stored.map_or("auto", |stored| &stored.device);
        let opened = select::open_for_training(self.device.as_deref().unwrap_or(before), model);
        if let (Some(stored), Ok(device)) = (stored, &opened)
            && stored.device != device.name()
        {
            note!("the run began on `{}`: on another device its numbers are rounded differently", stored.device);
        }
        opened
    }
}

impl LimitArgs {
    pub fn limits(&self) -> RunLimits {
        let limits = RunLimits::default().with_save_every(self.save_every);
        limits.with_max_steps(self.max_steps).with_patience(self.patience)
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.time_limit.and_then(|limit| Instant::now().checked_add(limit))
    }
}

impl ChangeArgs {
    /// The configuration with what was asked for.
    pub fn apply(&self, mut config: TrainConfig) -> TrainConfig {
        config.epochs = self.epochs.unwrap_or(config.epochs);
        config.seed = self.seed.unwrap_or(config.seed);
        config.batch_size = self.batch_size.unwrap_or(config.batch_size);
        config.negatives = self.negatives.unwrap_or(config.negatives);
        config.learning_rate = self.learning_rate.unwrap_or(config.learning_rate);
        config.max_gradient_norm = self.max_gradient_norm.or(config.max_gradient_norm);
        config.lazy_item_updates |= self.lazy_item_updates;
        if let Some(every) = self.eval_every {
            config.evaluation = config.evaluation.with_full_every(every).with_partial_batches(0);
        }
        if let Some(masks) = self.item_dropout_masks {
            config.item_dropout_masks = (masks > 0).then_some(masks);
        }
        config
    }
}

/// A new run.
fn begin(args: &TrainArgs) -> Result<Session> {
    let missing = |what: &str| Error::argument("options", what, "neither");
    let (model, train) = match (&args.preset, &args.config) {
        (Some(name), _) => preset(name)?,
        (None, Some(file)) => (ModelConfig::from_gin(file)?, TrainConfig::from_gin(file)?),
        (None, None) => return Err(missing("--preset or --config, or --resume with the folder of a run")),
    };
    let Some(output) = &args.output else { return Err(missing("--output with a new folder, or --resume")) };
    let train = args.change.apply(train);
    train.validate()?;
    if args.change.negatives.is_some() && train.loss == LossKind::FullSoftmax {
        let expected = "no --negatives: this configuration's softmax is over all items";
        return Err(Error::argument("options", expected, "--negatives"));
    }
    let data = read_data(&args.data.source()?)?;
    if let Some(preset) = &args.preset {
        mention_other_data(preset, &data);
    }
    let split = if args.validation { Split::Validation } else { Split::Test };
    let config = RunConfig::new(model, train, split, args.metric, data.summary());
    let device = args.device.open(None, &config.model)?;
    Session::create(output, config, data, &device)
}

/// A run that goes on.
fn resume(args: &TrainArgs, folder: &Input) -> Result<Session> {
    let (folder, stored) = RunFolder::open(folder)?;
    let source = args.data.changed(&stored.data.source)?;
    let data = read_data(&source)?;
    let mut config = stored.clone();
    config.train = args.change.apply(config.train);
    config.data = data.summary();
    let device = args.device.open(Some(&stored), &config.model)?;
    Session::resume(folder, &stored, config, data, &device)
}

fn print_best(session: &Session, test: Option<&EvaluationRecord>) -> Result<()> {
    let Some(EpochRecord { epoch, step, evaluation: Some(evaluation), .. }) = session.run.best() else {
        return outln!("\nno evaluation of all users yet, so no best model");
    };
    let metric = session.run.config().metric;
    outln!("\nbest {metric} after epoch {epoch:.4}, step {step}:")?;
    outln!("{}", described(evaluation))?;
    test.map_or(Ok(()), |test| outln!("{}", described(test)))?;
    outln!("model: {}", session.run.folder().best_file().display())
}

/// All metrics, with the split that they are of.
fn described(evaluation: &EvaluationRecord) -> String {
    let values: Vec<String> = evaluation.values().iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
    format!("{} split, {} users: {}", evaluation.split, evaluation.users, values.join("  "))
}

fn report(session: &Session, ending: Ending, test: Option<&EvaluationRecord>) -> Value {
    let run = &session.run;
    json!({
        "config": run.config(),
        "ending": ending.to_string(),
        "interrupted": session.interrupted,
        "epochs": run.records(),
        "best": run.best(),
        "test": test,
        "model": run.best().map(|_| run.folder().best_file()),
    })
}
