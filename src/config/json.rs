//! Hyper-parameters as JSON, the form in which a `.safetensors` file carries them.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::validate::Wrong;
use super::{ModelConfig, MolConfig};
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
    let stored: Stored<serde_json::Value> = serde_json::from_str(json).map_err(unreadable)?;
    if stored.format != FORMAT {
        let key = format!("{CONFIG_KEY}.format");
        let expected = format!("version {FORMAT}, all this program knows");
        return Err(error(0, &key, &expected, stored.format.to_string()));
    }
    let config: T = serde_json::from_value(stored.model).map_err(unreadable)?;
    check(&config).map_err(|wrong| error(0, wrong.key, &wrong.expected, wrong.found))?;
    Ok(config)
}
