//! Models that other programs have trained: their checkpoints as tensors and configurations of this one. `docs/CHECKPOINTS.md` has the
//! names and shapes of each.

mod bert4rec_vae;
mod gru4rec;
mod gsasrec;
mod hf;
mod matrix;
mod mol_scorer;
mod options;
mod pmixer;
mod reader;
mod recbole;
mod recognise;
mod rectools;
mod source;

pub use mol_scorer::{ImportedMol, import_mol};
pub use options::ImportOptions;
pub use source::Source;

use crate::checkpoint::Checkpoint;
use crate::config::{EncoderConfig, ModelConfig, OutputConfig, SimilarityConfig};
use crate::tensor::Tensor;
use crate::{Error, Result};
use reader::Reader;

/// A model of another program in the layout of this one.
pub struct Imported {
    /// Its hyper-parameters.
    pub config: ModelConfig,
    /// Its tensors, as [`Model::load`](crate::Model::load) reads them.
    pub tensors: Vec<(String, Tensor)>,
    /// Which ids the other program gave to the items 1, 2, ..., where the file says so.
    pub item_names: Option<Vec<String>>,
}

/// Reads the checkpoint of another program; `None` if it is none: `options` say so, or no program writes tensors of such names.
///
/// # Errors
/// [`Error::Argument`] if two programs write such names, a hyper-parameter is missing that the file does not tell, or one is said that
/// the model does not have, with the option that says it; [`Error::Tensor`] or [`Error::Checkpoint`] if tensors do not fit each other or
/// have no place in the model.
pub fn import(checkpoint: &Checkpoint, options: &ImportOptions) -> Result<Option<Imported>> {
    let source = match options.source {
        Some(source) => source,
        None => match recognise::recognise(checkpoint)? {
            Some(source) => source,
            None => return Ok(None),
        },
    };
    let pickle = checkpoint.pickle()?;
    let root = pickle.as_ref().map(|pickle| pickle.root());
    let mut reader = Reader::new(checkpoint, root, options);
    let config = match source {
        Source::Rails => return Ok(None),
        Source::Recbole => recbole::load(&mut reader)?,
        Source::Rectools => rectools::load(&mut reader)?,
        Source::Pmixer => pmixer::load(&mut reader, pmixer::Side::Left)?,
        Source::Gsasrec => gsasrec::load(&mut reader)?,
        Source::Gru4rec => gru4rec::load(&mut reader)?,
        Source::Bert4recVae => bert4rec_vae::load(&mut reader)?,
        Source::Hf => hf::load(&mut reader)?,
    };
    options.check_used(source, &config)?;
    log::info!("{}: read as a checkpoint of {source}", checkpoint.path().display());
    let item_names = reader.item_names.take();
    let tensors = reader.finish().map_err(|error| match error {
        Error::Checkpoint { path, what, .. } => {
            let fix =
                format!("{source} writes none of such names as far as this program knows it: see docs/CHECKPOINTS.md");
            Error::Checkpoint { path, what, fix }
        }
        other => other,
    })?;
    config.validate()?;
    Ok(Some(Imported { config, tensors, item_names }))
}

/// A model with a dot product that sees the last `max_sequence_length` events.
fn model_config(dim: usize, max_sequence_length: usize, encoder: EncoderConfig, output: OutputConfig) -> ModelConfig {
    ModelConfig {
        item_embedding_dim: dim,
        max_sequence_length,
        gr_output_length: 0,
        user_embedding_norm: crate::config::EmbeddingNorm::None,
        item_l2_norm: false,
        l2_norm_eps: 1e-6,
        encoder,
        similarity: SimilarityConfig::DotProduct,
        output,
    }
}
