//! The function behind `rails_wgpu.train`: a training run, of which Python is told after each epoch.

use std::ops::ControlFlow;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use numpy::PyReadonlyArray1;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use rails_wgpu::backend::select;
use rails_wgpu::config::{ModelConfig, TrainConfig, preset};
use rails_wgpu::dataset::Sequence;
use rails_wgpu::train::{
    DataSource, Ending, EpochRecord, EvaluationRecord, Run, RunConfig, RunData, RunEvent, RunFolder, RunLimits, Split,
};
use rails_wgpu::{Error, Result};
use rayon::ThreadPoolBuilder;

use crate::arrays::{Lists, numbers};
use crate::errors::{detached, exception};

/// How often Python is asked whether somebody has pressed Ctrl-C.
const SIGNALS: Duration = Duration::from_millis(100);

/// Item ids and timestamps, one history after the other; where each begins and the last one ends; users.
type Histories<'py> =
    (PyReadonlyArray1<'py, u32>, PyReadonlyArray1<'py, i64>, PyReadonlyArray1<'py, u64>, PyReadonlyArray1<'py, i64>);

/// What makes the weights: a preset or a gin file, then changes of the model and of the training, as JSON.
type Hyper = (Option<String>, Option<PathBuf>, String, String);

/// Whether the last event but one is held out, the metric that chooses, the most steps, evaluations without a better one, minutes, and
/// minutes between saves.
type Rules = (bool, String, Option<u64>, Option<usize>, Option<f64>, f64);

/// Where sequences and items come from.
enum Data {
    Files(PathBuf, Option<PathBuf>),
    Memory(RunData),
    /// The files that the run has read before.
    AsBefore,
}

/// All that a run needs to know.
struct Job {
    data: Data,
    folder: PathBuf,
    is_resumed: bool,
    hyper: Hyper,
    rules: Rules,
    device: Option<String>,
    threads: Option<usize>,
}

/// How it went.
struct Outcome {
    ending: Ending,
    records: Vec<EpochRecord>,
    best: Option<EpochRecord>,
    test: Option<EvaluationRecord>,
    model: PathBuf,
}

/// An epoch, and whether its model is the best so far.
type Told = (EpochRecord, bool);

/// Trains, and returns a dictionary: `ending`, `epochs`, `best`, `test` and `model`.
#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "they are the options of a run")]
pub fn train<'py>(
    py: Python<'py>,
    dataset: Option<PathBuf>,
    histories: Option<Histories<'py>>,
    items_file: Option<PathBuf>,
    items: Option<PyReadonlyArray1<'py, u32>>,
    folder: PathBuf,
    resume: bool,
    hyper: Hyper,
    rules: Rules,
    device: Option<String>,
    threads: Option<usize>,
    callback: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let data = match (dataset, histories) {
        (Some(file), _) => Data::Files(file, items_file),
        (None, Some(histories)) => {
            let items = items.map(|items| numbers("item_ids", &items)).transpose()?;
            Data::Memory(RunData::new(sequences(histories)?, items).map_err(exception)?)
        }
        (None, None) => Data::AsBefore,
    };
    let job = Job { data, folder, is_resumed: resume, hyper, rules, device, threads };
    let (mut raised, stop) = (None, &AtomicBool::new(false));
    let outcome = detached(py, || {
        thread::scope(|scope| {
            let (told, epochs) = channel::<Told>();
            let (answer, answers) = channel::<bool>();
            let worker = scope.spawn(move || job.run(stop, &told, answers));
            raised = listen(&epochs, &answer, callback.as_ref()).err();
            stop.store(raised.is_some(), Ordering::Relaxed);
            drop(answer);
            worker.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    });
    match raised {
        Some(error) => Err(error),
        None => outcome?.to_python(py),
    }
}

/// Calls back after each epoch, on the thread of the caller, until there is none any more. Fails with what the function raises, and
/// at Ctrl-C.
fn listen(epochs: &Receiver<Told>, answer: &Sender<bool>, callback: Option<&Py<PyAny>>) -> PyResult<()> {
    loop {
        let epoch = match epochs.recv_timeout(SIGNALS) {
            Ok(epoch) => Some(epoch),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        let go_on = Python::attach(|py| {
            py.check_signals()?;
            let (Some((record, is_best)), Some(callback)) = (&epoch, callback) else { return Ok::<bool, PyErr>(true) };
            let metrics = metrics(py, record)?;
            metrics.set_item("is_best", is_best)?;
            let returned = callback.call1(py, (metrics,))?;
            let returned = returned.bind(py);
            Ok(returned.is_none() || returned.is_truthy()?)
        })?;
        if epoch.is_some() {
            // Nobody waits for it where the run has failed meanwhile.
            let _ = answer.send(go_on);
        }
    }
}

fn sequences((item_ids, timestamps, offsets, user_ids): Histories) -> PyResult<Vec<Sequence>> {
    let offsets = numbers("offsets", &offsets)?;
    let item_ids = Lists::new(numbers("item_ids", &item_ids)?, offsets.clone())?;
    let timestamps = Lists::new(numbers("timestamps", &timestamps)?, offsets)?;
    let users = numbers("user_ids", &user_ids)?;
    let lists = item_ids.iter().zip(timestamps.iter());
    let sequence = |(user_id, (item_ids, timestamps)): (i64, (&[u32], &[i64]))| Sequence {
        user_id,
        item_ids: item_ids.to_vec(),
        ratings: vec![1.0; item_ids.len()],
        timestamps: timestamps.to_vec(),
    };
    Ok(users.into_iter().zip(lists).map(sequence).collect())
}

impl Job {
    /// The whole run, in as many threads as it may have.
    fn run(self, stop: &AtomicBool, told: &Sender<Told>, answers: Receiver<bool>) -> Result<Outcome> {
        let Some(n) = self.threads else { return self.work(stop, told, answers) };
        let refused =
            |error| Error::argument("threads", "as many threads as the system allows", format!("{n}: {error}"));
        let pool = ThreadPoolBuilder::new().num_threads(n).build().map_err(refused)?;
        pool.install(move || self.work(stop, told, answers))
    }

    fn work(self, stop: &AtomicBool, told: &Sender<Told>, answers: Receiver<bool>) -> Result<Outcome> {
        let (_, _, max_steps, patience, time_limit, save_every) = self.rules;
        let minutes = |minutes: f64| {
            let expected = "a number of minutes, 0 or more";
            let duration = Duration::try_from_secs_f64(60.0 * minutes);
            duration.map_err(|_| Error::argument("minutes", expected, minutes))
        };
        let limits = RunLimits::default().with_save_every(minutes(save_every)?);
        let limits = limits.with_max_steps(max_steps).with_patience(patience);
        let deadline = time_limit.map(minutes).transpose()?.and_then(|limit| Instant::now().checked_add(limit));
        let (mut run, sequences) = self.open()?;
        let is_over = || stop.load(Ordering::Relaxed) || deadline.is_some_and(|deadline| Instant::now() >= deadline);
        let flow = |is_over| if is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        let ending = run.train(&limits, &mut |event| match event {
            RunEvent::Epoch { record, is_best } => {
                // Without anybody who listens there is no answer either.
                let _ = told.send((record.clone(), is_best));
                flow(!answers.recv().unwrap_or(false) || is_over())
            }
            _ => flow(is_over()),
        })?;
        let has_test = ending != Ending::Stopped && run.config().split != Split::Test && run.best().is_some();
        let test =
            has_test.then(|| run.evaluate_best(&sequences, Split::Test, &mut |_| flow(is_over()))).transpose()?;
        Ok(Outcome {
            ending,
            records: run.records().to_vec(),
            best: run.best().cloned(),
            test,
            model: run.folder().best_file(),
        })
    }

    /// The run, and the sequences that it is of.
    fn open(self) -> Result<(Run, Vec<Sequence>)> {
        let Job { data, folder, is_resumed, hyper: (preset, gin, of_model, of_training), rules, device, .. } = self;
        if is_resumed {
            let (folder, stored) = RunFolder::open(&folder)?;
            let data = data.read(Some(&stored.data.source))?;
            let mut config = stored.clone();
            config.train = config.train.overridden(&of_training)?;
            config.data = data.summary();
            let device = select::open_for_training(device.as_deref().unwrap_or(&stored.device), &config.model)?;
            return Ok((Run::resume(folder, &stored, config, data.set(), &device)?, data.sequences));
        }
        let (model, train) = hyper_parameters(preset.as_deref(), gin.as_deref())?;
        let (model, train) = (model.overridden(&of_model)?, train.overridden(&of_training)?);
        let data = data.read(None)?;
        let split = if rules.0 { Split::Validation } else { Split::Test };
        let config = RunConfig::new(model, train, split, rules.1.parse()?, data.summary());
        let device = select::open_for_training(device.as_deref().unwrap_or("auto"), &config.model)?;
        Ok((Run::create(&folder, config, data.set(), &device)?, data.sequences))
    }
}

fn hyper_parameters(name: Option<&str>, gin: Option<&Path>) -> Result<(ModelConfig, TrainConfig)> {
    match (name, gin) {
        (Some(name), None) => preset(name),
        (None, Some(file)) => Ok((ModelConfig::from_gin(file)?, TrainConfig::from_gin(file)?)),
        (Some(_), Some(_)) => Err(Error::argument("hyper-parameters", "either a preset or a config", "both")),
        (None, None) => Err(Error::argument("hyper-parameters", "a preset or a config", "neither")),
    }
}

impl Data {
    fn read(self, before: Option<&DataSource>) -> Result<RunData> {
        let data = match (self, before) {
            (Data::Memory(data), _) => data,
            (Data::Files(dataset, items), _) => RunData::read(&DataSource::of_files(&dataset, items.as_deref())?)?,
            (Data::AsBefore, Some(source)) if !source.dataset.as_os_str().is_empty() => RunData::read(source)?,
            (Data::AsBefore, _) => {
                return Err(Error::argument("data", "a file or histories, as the run had arrays", "None"));
            }
        };
        data.warnings.iter().for_each(|warning| log::warn!("{warning}"));
        Ok(data)
    }
}

impl Outcome {
    fn to_python<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let result = PyDict::new(py);
        let epochs = self.records.iter().map(|record| metrics(py, record));
        result.set_item("ending", self.ending.to_string())?;
        result.set_item("epochs", epochs.collect::<PyResult<Vec<_>>>()?)?;
        result.set_item("best", self.best.as_ref().map(|record| metrics(py, record)).transpose()?)?;
        let test = self.test.as_ref().map(|record| {
            let values = PyDict::new(py);
            evaluation(&values, record).map(|()| values)
        });
        result.set_item("test", test.transpose()?)?;
        result.set_item("model", self.best.is_some().then_some(&self.model))?;
        Ok(result)
    }
}

/// A line of `metrics.csv`, by the names of its columns.
fn metrics<'py>(py: Python<'py>, record: &EpochRecord) -> PyResult<Bound<'py, PyDict>> {
    let values = PyDict::new(py);
    values.set_item("epoch", record.epoch)?;
    values.set_item("step", record.step)?;
    values.set_item("loss", record.losses.total)?;
    values.set_item("softmax_loss", record.losses.softmax)?;
    values.set_item("mi_loss", record.losses.mi_loss)?;
    values.set_item("uid_embedding_l2_norm", record.losses.uid_embedding_l2_norm)?;
    values.set_item("positions_per_second", record.positions_per_second)?;
    if let Some(record) = &record.evaluation {
        evaluation(&values, record)?;
    }
    Ok(values)
}

fn evaluation(values: &Bound<PyDict>, record: &EvaluationRecord) -> PyResult<()> {
    values.set_item("split", record.split.to_string())?;
    values.set_item("users", record.users)?;
    values.set_item("all_users", record.is_full)?;
    record.values().iter().try_for_each(|(name, value)| values.set_item(name.to_lowercase(), value))
}
