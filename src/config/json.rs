//! Hyper-parameters as JSON, the form in which a `.safetensors` file carries them.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::validate::Wrong;
use super::{LossKind, ModelConfig, MolConfig, TrainConfig};
use crate::error::Parameter;
use crate::{Error, Result};

/// Key of the JSON text in the metadata of a `.safetensors` file.
pub const CONFIG_KEY: &str = "rails.config";

/// Version of the JSON form; any change of meaning raises it.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Stored<T> {
    format: u32,
    model: T,
}

impl ModelConfig {
    /// The configuration as JSON, for metadata under [`CONFIG_KEY`].
    pub fn to_json(&self) -> String {
        write(self)
    }

    /// Reads what [`ModelConfig::to_json`] wrote; `path` is the file it came from, for messages.
    ///
    /// # Errors
    /// [`Error::Config`] if it is not such JSON, of another format version, or holds values that [`ModelConfig::validate`]
    /// rejects.
    pub fn from_json(json: &str, path: impl AsRef<Path>) -> Result<ModelConfig> {
        read(json, path.as_ref(), ModelConfig::check)
    }

    /// The configuration with the values of a JSON object in the places that it names: `{"max_sequence_length": 50}`.
    ///
    /// # Errors
    /// [`Error::Argument`] if that is no object, a name is unknown, or a value does not fit.
    pub fn overridden(&self, json: &str) -> Result<ModelConfig> {
        let config: ModelConfig = overridden(self, json)?;
        config.validate()?;
        Ok(config)
    }
}

impl TrainConfig {
    /// The configuration with the values of a JSON object in the places that it names.
    ///
    /// ```
    /// use rails_wgpu::config::TrainConfig;
    ///
    /// let config = TrainConfig::default().overridden(r#"{"epochs": 20, "dropout": {"input": 0.1}}"#)?;
    /// assert_eq!((config.epochs, config.dropout.input, config.dropout.uid), (20, 0.1, 0.5));
    /// # Ok::<(), rails_wgpu::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] if that is no object, a name is unknown, or a value does not fit; or for another number of negatives
    /// where the loss has none.
    pub fn overridden(&self, json: &str) -> Result<TrainConfig> {
        let config: TrainConfig = overridden(self, json)?;
        config.validate()?;
        if config.loss == LossKind::FullSoftmax && config.negatives != self.negatives {
            let expected = "no negatives: the softmax is over all items";
            return Err(Error::argument(
                Parameter::HyperParameters,
                expected,
                format!("negatives {}", config.negatives),
            ));
        }
        Ok(config)
    }
}

impl MolConfig {
    /// The same for a similarity alone.
    pub fn to_json(&self) -> String {
        write(self)
    }

    /// Reads what [`MolConfig::to_json`] wrote; `path` is the file it came from, for messages.
    ///
    /// # Errors
    /// As [`ModelConfig::from_json`].
    pub fn from_json(json: &str, path: impl AsRef<Path>) -> Result<MolConfig> {
        read(json, path.as_ref(), MolConfig::check)
    }
}

fn overridden<T: Serialize + DeserializeOwned>(config: &T, json: &str) -> Result<T> {
    let wrong = |error: serde_json::Error| {
        Error::argument(Parameter::HyperParameters, "an object with names and values of a configuration", error)
    };
    let changes: serde_json::Map<String, Value> = serde_json::from_str(json).map_err(wrong)?;
    let mut config = serde_json::to_value(config).map_err(wrong)?;
    merge(&mut config, Value::Object(changes));
    serde_json::from_value(config).map_err(wrong)
}

/// Puts the values of `changes` in the place of those of `value`, object by object.
fn merge(value: &mut Value, changes: Value) {
    match (value, changes) {
        (Value::Object(value), Value::Object(changes)) => {
            for (name, change) in changes {
                merge(value.entry(name).or_insert(Value::Null), change);
            }
        }
        (value, change) => *value = change,
    }
}

fn write<T: Serialize>(model: T) -> String {
    serde_json::json!(Stored { format: FORMAT, model }).to_string()
}

fn read<T: DeserializeOwned>(json: &str, path: &Path, check: impl Fn(&T) -> Result<(), Wrong>) -> Result<T> {
    let error = |line, key: &str, expected: &str, found: String| {
        let (path, key, expected) = (path.to_path_buf(), key.to_string(), expected.to_string());
        Error::Config { path, line, key, expected, found }
    };
    let unreadable =
        |e: serde_json::Error| error(e.line(), CONFIG_KEY, "JSON written by `rails-bench convert`", e.to_string());
    let stored: Stored<Value> = serde_json::from_str(json).map_err(unreadable)?;
    if stored.format != FORMAT {
        let key = format!("{CONFIG_KEY}.format");
        let expected = format!("version {FORMAT}, all this program knows");
        return Err(error(0, &key, &expected, stored.format.to_string()));
    }
    let config: T = serde_json::from_value(stored.model).map_err(unreadable)?;
    check(&config).map_err(|wrong| error(0, wrong.key, &wrong.expected, wrong.found))?;
    Ok(config)
}
