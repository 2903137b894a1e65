//! Configurations that come with the crate: the models of the published tables, with their hyper-parameters. The files say where
//! those are from.

use super::{ModelConfig, TrainConfig};
use crate::Result;
use crate::error::Parameter;
use crate::names::unknown;

macro_rules! presets {
    ($($name:literal),* $(,)?) => {
        /// Names of presets, `DATA/MODEL`, and their texts: gin files as [`ModelConfig::from_gin`] reads them.
        pub const PRESETS: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../assets/presets/", $name, ".gin")))),*];
    };
}

presets! {
    "ml-1m/sasrec", "ml-1m/gru4rec", "ml-1m/bert4rec", "ml-1m/hstu", "ml-1m/hstu-large", "ml-1m/hstu-mol",
    "ml-20m/sasrec", "ml-20m/gru4rec", "ml-20m/bert4rec", "ml-20m/hstu", "ml-20m/hstu-large", "ml-20m/hstu-mol",
    "amzn-books/sasrec", "amzn-books/gru4rec", "amzn-books/bert4rec", "amzn-books/hstu", "amzn-books/hstu-large",
    "amzn-books/hstu-mol",
}

/// Model and training of the preset called `name`.
///
/// ```
/// let (model, train) = rails_wgpu::config::preset("ml-1m/hstu-mol")?;
/// assert_eq!((model.item_embedding_dim, train.negatives), (50, 128));
/// # Ok::<(), rails_wgpu::Error>(())
/// ```
///
/// # Errors
/// If there is none.
pub fn preset(name: &str) -> Result<(ModelConfig, TrainConfig)> {
    let found = PRESETS.iter().find(|(known, _)| *known == name);
    let Some((_, text)) = found else {
        return Err(unknown(Parameter::Preset, PRESETS.iter().map(|(name, _)| *name), name));
    };
    let path = format!("{name}.gin");
    Ok((ModelConfig::parse_gin(text, &path)?, TrainConfig::parse_gin(text, &path)?))
}
