//! Trained models.

use std::ffi::c_char;
use std::path::Path;

use super::ffi::{RwStatus, guarded, hand_out, release, text};
use crate::Error;
use crate::model_file::ModelFile;

/// A trained model, or a Mixture-of-Logits similarity alone, in host memory.
pub struct RwModel(pub(super) ModelFile);

/// Loads a checkpoint (.pt or .safetensors), or a similarity that `export_mol` of the Python package wrote. `config` is
/// the .gin file the model was trained with; null: the hyper-parameters inside the file, or a .gin file beside it.
///
/// # Safety
/// Texts are null or end with a zero; `out` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rw_model_open(
    checkpoint: *const c_char,
    config: *const c_char,
    out: *mut *mut RwModel,
) -> RwStatus {
    guarded(|| {
        // SAFETY: the caller vouches for the texts.
        let (checkpoint, config) = unsafe { (text("checkpoint", checkpoint)?, text("config", config)?) };
        let checkpoint = checkpoint.ok_or_else(|| Error::argument("checkpoint", "a path", "a null pointer"))?;
        // SAFETY: the caller vouches for `out`.
        unsafe { hand_out(out, || Ok(RwModel(ModelFile::open(checkpoint, config.map(Path::new))?))) }
    })
}

/// D: width of raw item and query embeddings; 0 for null.
///
/// # Safety
/// `model` is null or alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rw_model_dim(model: *const RwModel) -> usize {
    // SAFETY: the caller vouches for it.
    unsafe { model.as_ref() }.map_or(0, |model| model.0.dim())
}

/// Rows of the item table: ids run from 1 to one less; 0 for null and where there is no table.
///
/// # Safety
/// `model` is null or alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rw_model_item_rows(model: *const RwModel) -> usize {
    // SAFETY: the caller vouches for it.
    unsafe { model.as_ref() }.and_then(|model| model.0.model()).map_or(0, |model| model.n_item_rows())
}

/// Releases a model. Searchers that were made from it stay as they are.
///
/// # Safety
/// `model` is null or alive; it ends here.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rw_model_free(model: *mut RwModel) {
    // SAFETY: the caller vouches for it.
    unsafe { release(model) }
}
