//! What a training run is: everything that its result depends on, as JSON.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Split;
use crate::config::{ModelConfig, TrainConfig};
use crate::dataset::Sequence;
use crate::error::Parameter;
use crate::metrics::Metric;
use crate::{Error, Result};

/// Version of the form; any change of meaning raises it.
const FORMAT: u32 = 1;

/// The effective configuration of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct RunConfig {
    format: u32,
    /// The model.
    pub model: ModelConfig,
    /// How it is trained.
    pub train: TrainConfig,
    /// What is held out of training, and predicted after each epoch.
    pub split: Split,
    /// What the best model is chosen by.
    pub metric: Metric,
    /// What it is trained on.
    pub data: DataSummary,
    /// The device that it is trained on, as [`select::open_for_training`](crate::backend::select::open_for_training) takes it. [`Run`](
    /// crate::train::Run) writes it.
    #[serde(default = "cpu")]
    pub device: String,
}

/// What runs without the name of a device were trained on.
fn cpu() -> String {
    "cpu".to_string()
}

/// Tells one data set from another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct DataSummary {
    /// Where it was read from.
    pub source: DataSource,
    /// Users.
    pub users: usize,
    /// Events of all users.
    pub events: usize,
    /// Items to be found.
    pub items: usize,
    /// CRC-32 of users, events and items.
    pub checksum: u32,
}

/// Where data were read from, and how: for going on, and for people. Empty for data that were in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSource {
    /// The file of sequences.
    pub dataset: PathBuf,
    /// The file of items, if there is one.
    pub item_ids: Option<PathBuf>,
    /// As [`ReadOptions::skip_bad_lines`](crate::dataset::ReadOptions::skip_bad_lines).
    pub skip_bad_lines: bool,
    /// As [`ReadOptions::shift_id_by`](crate::dataset::ReadOptions::shift_id_by).
    pub shift_id_by: u32,
}

impl RunConfig {
    /// Puts the parts together.
    pub fn new(model: ModelConfig, train: TrainConfig, split: Split, metric: Metric, data: DataSummary) -> RunConfig {
        RunConfig { format: FORMAT, model, train, split, metric, data, device: cpu() }
    }

    /// The JSON text, with numbers as short as they can be.
    pub(super) fn to_json(&self) -> Result<String> {
        let unwritable = |error: serde_json::Error| Error::argument(Parameter::RunFolder, "a path in UTF-8", error);
        Ok(serde_json::to_string_pretty(self).map_err(unwritable)? + "\n")
    }

    /// Reads it.
    pub(super) fn from_json(text: &str, path: &Path) -> Result<RunConfig> {
        let error = |key: &str, expected: &str, found: String| Error::Config {
            path: path.to_path_buf(),
            line: 0,
            key: key.to_string(),
            expected: expected.to_string(),
            found,
        };
        let value: Value =
            serde_json::from_str(text).map_err(|e| error("run", "JSON written by a training run", e.to_string()))?;
        if value["format"] != FORMAT {
            return Err(error(
                "format",
                &format!("version {FORMAT}, all this program knows"),
                value["format"].to_string(),
            ));
        }
        let config: RunConfig = serde_json::from_value(value)
            .map_err(|e| error("run", "what a training run has written", e.to_string()))?;
        config.model.validate()?;
        config.train.validate()?;
        Ok(config)
    }

    /// Whether a run of this configuration may be continued as one of `other`: all that the weights depend on must be equal.
    /// Numbers of epochs may differ, and so may the device and the places of files.
    ///
    /// # Errors
    /// [`Error::Config`] that names the first difference; `path` is where this configuration is.
    pub fn check_same(&self, other: &RunConfig, path: &Path) -> Result<()> {
        let plain = |config: &RunConfig| {
            let mut config = config.clone();
            config.train.epochs = 1;
            config.data.source = DataSource::default();
            config.device = cpu();
            Ok::<Value, Error>(serde_json::from_str(&config.to_json()?).unwrap_or_default())
        };
        match difference("", &plain(self)?, &plain(other)?) {
            None => Ok(()),
            Some((key, expected, found)) => Err(Error::Config {
                path: path.to_path_buf(),
                line: 0,
                key,
                expected: format!("{expected}, with which the run began (a change needs a new run)"),
                found,
            }),
        }
    }
}

impl DataSummary {
    /// Of a data set and the items to be found.
    pub fn new(source: DataSource, sequences: &[Sequence], items: &[u32]) -> DataSummary {
        let mut checksum = crc32fast::Hasher::new();
        for sequence in sequences {
            checksum.update(&sequence.user_id.to_le_bytes());
            checksum.update(&(sequence.len() as u64).to_le_bytes());
            sequence.item_ids.iter().for_each(|id| checksum.update(&id.to_le_bytes()));
            sequence.timestamps.iter().for_each(|time| checksum.update(&time.to_le_bytes()));
        }
        items.iter().for_each(|id| checksum.update(&id.to_le_bytes()));
        let events = sequences.iter().map(Sequence::len).sum();
        let (users, items, checksum) = (sequences.len(), items.len(), checksum.finalize());
        DataSummary { source, users, events, items, checksum }
    }
}

/// Where two JSON values differ first, and how.
fn difference(key: &str, one: &Value, other: &Value) -> Option<(String, String, String)> {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let names = one.keys().chain(other.keys().filter(|name| !one.contains_key(*name)));
            let mut differences = names.filter_map(|name| {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                let value = |of: &serde_json::Map<String, Value>| of.get(name).cloned().unwrap_or(Value::Null);
                difference(&key, &value(one), &value(other))
            });
            differences.next()
        }
        _ if one == other => None,
        _ => Some((key.to_string(), one.to_string(), other.to_string())),
    }
}
