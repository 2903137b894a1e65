//! Where the hyper-parameters of a checkpoint are.

use std::path::{Path, PathBuf};

use super::{CONFIG_KEY, ModelConfig};
use crate::checkpoint::Checkpoint;
use crate::{Error, Result};

/// The hyper-parameters of the `.gin` file `given`, or those inside the checkpoint, or those of a `.gin` file beside it: of
/// the same name, or `config.gin`.
///
/// # Errors
/// If there are none, or as [`ModelConfig::from_gin`] and [`ModelConfig::from_json`].
pub fn find_config(checkpoint: &Checkpoint, given: Option<&Path>) -> Result<ModelConfig> {
    let path = checkpoint.path();
    if let Some(given) = given {
        return ModelConfig::from_gin(given);
    }
    if let Some(json) = inside(checkpoint) {
        return ModelConfig::from_json(json, path);
    }
    let config = config_beside(path).ok_or_else(|| Error::Checkpoint {
        path: path.to_path_buf(),
        what: "holds no hyper-parameters".to_string(),
        fix: "name the model's .gin file (--config), the program that has written the checkpoint (--from), or convert it with \
              `rails-bench convert`"
            .to_string(),
    })?;
    log::info!("hyper-parameters from {}", config.display());
    ModelConfig::from_gin(config)
}

/// Whether [`find_config`] finds something without being given a file.
pub fn has_config(checkpoint: &Checkpoint) -> bool {
    inside(checkpoint).is_some() || config_beside(checkpoint.path()).is_some()
}

fn inside(checkpoint: &Checkpoint) -> Option<&String> {
    checkpoint.metadata()?.get(CONFIG_KEY)
}

/// The `.gin` file that lies with the checkpoint `path`: of the same name, or `config.gin`.
pub fn config_beside(path: &Path) -> Option<PathBuf> {
    let candidates = [path.with_extension("gin"), path.with_file_name("config.gin")];
    candidates.into_iter().find(|candidate| candidate.is_file())
}
