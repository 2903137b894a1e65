//! The folder of a training run.
//!
//! | file | what |
//! |---|---|
//! | `config.json` | [`RunConfig`] |
//! | `state.safetensors` | weights, moments of the optimiser, position: all that the run needs to go on |
//! | `last.safetensors` | the model of that state |
//! | `model.safetensors` | the best model |
//! | `metrics.csv` | a line per epoch |
//!
//! Each file is replaced as a whole, the state after what was measured of it: wherever a process is killed, the run goes on from
//! the state, and computes and writes again what others are ahead of it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Error as IoError, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::record::csv;
use super::state::RunState;
use super::{EpochRecord, RunConfig, TrainState};
use crate::checkpoint::{Checkpoint, save_safetensors};
use crate::config::{CONFIG_KEY, ModelConfig};
use crate::error::Parameter;
use crate::model::Model;
use crate::tensor::Tensor;
use crate::{Error, Result, atomic, input};

const CONFIG: &str = "config.json";
const STATE: &str = "state.safetensors";
const LAST: &str = "last.safetensors";
const BEST: &str = "model.safetensors";
const METRICS: &str = "metrics.csv";
const LOCK: &str = "run.lock";

/// Longest `config.json`.
const MAX_CONFIG: usize = 1 << 20;

/// Before the names of weights, of the means of their gradients, and of the means of the squares of these.
const PREFIXES: [&str; 3] = ["weights.", "first_moments.", "second_moments."];

/// Key of a [`RunState`] in the metadata of its file.
const STATE_KEY: &str = "rails.run";

/// A folder that this process alone writes to.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
}

impl RunFolder {
    /// Begins a run in a new folder, or in an empty one.
    ///
    /// # Errors
    /// If the folder holds something, or cannot be written.
    pub fn create(path: &Path, config: &RunConfig) -> Result<RunFolder> {
        let refused = |found: String| {
            let expected = "a new folder or an empty one (`--resume` goes on with a run)";
            Err(Error::argument(Parameter::RunFolder, expected, format!("{found} in {}", path.display())))
        };
        if path.join(CONFIG).exists() {
            return refused("a run".to_string());
        }
        if let Some(name) = foreign(path) {
            return refused(format!("`{name}`"));
        }
        fs::create_dir_all(path).and_then(|()| atomic::sync_folder(path)).map_err(Error::io("create", path))?;
        let folder = RunFolder { path: path.to_path_buf(), _lock: lock(path)? };
        folder.write_config(config)?;
        Ok(folder)
    }

    /// Opens the folder of a run.
    ///
    /// # Errors
    /// If there is none, it is damaged, or another process works in it.
    pub fn open(path: &Path) -> Result<(RunFolder, RunConfig)> {
        let config = path.join(CONFIG);
        if !config.exists() {
            let expected = format!("the folder of a training run, with a file {CONFIG}");
            return Err(Error::argument(Parameter::RunFolder, expected, path.display()));
        }
        let folder = RunFolder { path: path.to_path_buf(), _lock: lock(path)? };
        folder.remove_temporary()?;
        Ok((folder, RunConfig::from_json(&input::text_up_to(&config, MAX_CONFIG)?, &config)?))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the configuration is.
    pub fn config_file(&self) -> PathBuf {
        self.path.join(CONFIG)
    }

    /// Where the best model is.
    pub fn best_file(&self) -> PathBuf {
        self.path.join(BEST)
    }

    /// Replaces the configuration, in which the number of epochs may change.
    pub(super) fn write_config(&self, config: &RunConfig) -> Result<()> {
        let json = config.to_json()?;
        atomic::write(&self.config_file(), |file| file.write_all(json.as_bytes()))
    }

    /// Replaces the best model.
    pub(super) fn write_best(&self, model: &Model) -> Result<()> {
        write_model(&self.path.join(BEST), model)
    }

    /// Replaces the state and what follows from it.
    pub(super) fn write_state(&self, state: &RunState, trained: &TrainState) -> Result<()> {
        let json = serde_json::json!(state).to_string();
        self.write_metrics(&state.records)?;
        let models = PREFIXES.into_iter().zip([&trained.model, &trained.first_moments, &trained.second_moments]);
        let tensors: Vec<(String, Tensor)> = models
            .flat_map(|(prefix, model)| {
                model.named_tensors().into_iter().map(move |(name, tensor)| (format!("{prefix}{name}"), tensor))
            })
            .collect();
        save_safetensors(self.path.join(STATE), &tensors, &BTreeMap::from([(STATE_KEY.to_string(), json)]))?;
        write_model(&self.path.join(LAST), &trained.model)
    }

    fn write_metrics(&self, records: &[EpochRecord]) -> Result<()> {
        atomic::write(&self.path.join(METRICS), |file| file.write_all(csv(records).as_bytes()))
    }

    /// The state, with weights and moments; `None` before the first one was written.
    pub(super) fn read_state(&self, config: &ModelConfig) -> Result<Option<(RunState, TrainState)>> {
        let path = self.path.join(STATE);
        if !path.exists() {
            return Ok(None);
        }
        let checkpoint = Checkpoint::open(&path)?;
        let json = checkpoint.metadata().and_then(|metadata| metadata.get(STATE_KEY)).map_or("", String::as_str);
        let state: RunState = serde_json::from_str(json).map_err(|error| Error::Checkpoint {
            path: path.clone(),
            what: format!("no state of a training run: {error}"),
            fix: "give the folder of a run that this version has written".to_string(),
        })?;
        let model = |prefix: &str| {
            let names = checkpoint.names().filter_map(|name| Some((name.strip_prefix(prefix)?, name)));
            let tensors = names.map(|(name, stored)| Ok((name.to_string(), checkpoint.tensor(stored)?)));
            Model::load(&Checkpoint::from_tensors(tensors.collect::<Result<_>>()?, &path)?, config.clone())
        };
        let [weights, first, second] = PREFIXES;
        let trained = TrainState {
            step: state.step,
            model: model(weights)?,
            first_moments: model(first)?,
            second_moments: model(second)?,
        };
        Ok(Some((state, trained)))
    }

    /// Removes what a killed process was writing.
    fn remove_temporary(&self) -> Result<()> {
        for name in names(&self.path).filter(|name| is_temporary(name)) {
            let path = self.path.join(name);
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
        Ok(())
    }
}

/// Writes a model with its configuration.
fn write_model(path: &Path, model: &Model) -> Result<()> {
    let metadata = BTreeMap::from([(CONFIG_KEY.to_string(), model.config.to_json())]);
    save_safetensors(path, &model.named_tensors(), &metadata)
}

fn names(folder: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
}

/// Something in the folder that is not of a run which was killed before it had begun.
fn foreign(folder: &Path) -> Option<String> {
    names(folder).filter(|name| name != LOCK && !is_temporary(name)).min()
}

/// Whether [`atomic::write()`] made it.
fn is_temporary(name: &str) -> bool {
    let ours = [CONFIG, STATE, LAST, BEST, METRICS];
    ours.iter().any(|file| name.strip_prefix('.').is_some_and(|rest| rest.starts_with(file)) && name.ends_with(".tmp"))
}

/// Locks the folder against other processes.
fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(LOCK);
    let failed = || Error::io("lock", &path);
    if fs::symlink_metadata(&path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(failed()(IoError::new(ErrorKind::InvalidInput, "expected a file")));
    }
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(failed())?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let expected = "a folder that no other process trains in";
            Err(Error::argument(Parameter::RunFolder, expected, format!("{}, which is in use", folder.display())))
        }
        Err(TryLockError::Error(error)) => Err(failed()(error)),
    }
}
