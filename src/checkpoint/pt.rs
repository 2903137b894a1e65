//! PyTorch's own files, zip and legacy, through `pytorch-reader`.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use pytorch_reader::{MAX_PICKLE_SIZE, PytorchError, PytorchReader};
use zip::ZipArchive;

use super::pickle::{self, Pickle};
use super::{Entry, Stored, instruction, pickle_gate};
use crate::{Error, Result, input};

/// Keys under which training programs put the weights, the reference's first.
const WEIGHT_KEYS: [&str; 3] = ["model_state_dict", "state_dict", "model"];

/// The module of GRU4Rec_PyTorch_Official, whose `savemodel` pickles the whole program's object, training data included.
const GRU4REC_MODULE: &str = "`gru4rec_pytorch.";

/// A legacy file is five pickles: magic number, version, system information, the object, storage keys.
const LEGACY_PICKLES: usize = 5;

/// A tensor this small may be larger than its file, which lets compressed archives through.
const SMALL_TENSOR: u64 = 64 << 20;

pub(super) fn open(path: &Path, file: File, zipped: bool) -> Result<Vec<(String, Entry)>> {
    let file_len = file.metadata().map_err(Error::io("read", path))?.len();
    let refuse = |what| refused(path, what);
    if zipped { check_zip(file) } else { pickle_gate::check(&mut BufReader::new(file), LEGACY_PICKLES) }
        .map_err(refuse)?;
    let reader = read(path).map_err(|error| match error {
        PytorchError::Io(source) if source.raw_os_error().is_some() => Error::io("read", path)(source),
        other => refuse(format!("cannot be read: {other}")),
    })?;
    let of_weights = |name: &str| !name.starts_with("optimizer.") && !name.starts_with("optimizer_state_dict.");
    let tensors = reader.into_tensors().into_iter().filter(|(name, _)| of_weights(name));
    tensors
        .map(|(name, tensor)| {
            // A view with zero strides can name more elements than the file has bytes; `read` would allocate them.
            let limit = file_len.max(SMALL_TENSOR);
            if tensor.byte_len() as u64 > limit {
                return Err(Error::Tensor {
                    path: path.to_path_buf(),
                    name,
                    expected: format!("at most {limit} bytes, in a file of {file_len}"),
                    found: format!("{} bytes, shape {:?}", tensor.byte_len(), tensor.shape()),
                });
            }
            let (dtype, shape) = (tensor.dtype().into(), tensor.shape().to_vec());
            Ok((name, Entry { dtype, shape, stored: Stored::Pt(tensor) }))
        })
        .collect()
}

/// What a zip file holds beside its tensors; `None` for the legacy format.
pub(super) fn pickle(path: &Path) -> Result<Option<Pickle>> {
    let file = input::open(path).map_err(Error::io("open", path))?;
    let Ok(mut archive) = ZipArchive::new(BufReader::new(file)) else { return Ok(None) };
    let index =
        (0..archive.len()).find(|&index| archive.by_index_raw(index).is_ok_and(|entry| is_content(entry.name_raw())));
    let Some(index) = index else { return Ok(None) };
    let entry = archive.by_index(index).map_err(|error| refused(path, format!("is a damaged zip archive: {error}")))?;
    let read = pickle::read(&mut BufReader::new(entry.take(MAX_PICKLE_SIZE)));
    read.map(Some).map_err(|what| refused(path, what))
}

/// Whether this is the entry of the archive with what was saved.
fn is_content(name: &[u8]) -> bool {
    name == b"data.pkl" || name.ends_with(b"/data.pkl")
}

fn refused(path: &Path, what: String) -> Error {
    let load = || format!("torch.load('{}', map_location='cpu', weights_only=False)", path.display());
    let fix = if what.contains(GRU4REC_MODULE) {
        format!(
            "write its weights, in the folder of gru4rec_pytorch.py: python -c \"import torch; torch.save({}.model.state_dict(), \
             'weights.pt')\"",
            load()
        )
    } else if what == instruction::too_many() {
        format!(
            "write the file again with `torch.save(model.state_dict(), path)`, one of RecTools without the ids of its items: \
             python -c \"import torch; file = {}; del file['hyper_parameters']['item_external_ids']; torch.save(file, \
             'without_ids.ckpt')\"",
            load()
        )
    } else {
        "write the file again with `torch.save(model.state_dict(), path)`".to_string()
    };
    Error::Checkpoint { path: path.to_path_buf(), what, fix }
}

/// The weights under the first of [`WEIGHT_KEYS`] that holds any, else the whole file.
fn read(path: &Path) -> std::result::Result<PytorchReader, PytorchError> {
    for key in WEIGHT_KEYS {
        match PytorchReader::with_top_level_key(path, key) {
            Ok(reader) if !reader.is_empty() => return Ok(reader),
            // No such key, or no dictionary there.
            Ok(_) | Err(PytorchError::KeyNotFound(_) | PytorchError::InvalidFormat(_)) => {}
            Err(damaged) => return Err(damaged),
        }
    }
    PytorchReader::new(path)
}

/// Passes every pickle of the archive through the gate, whichever of them a reader would choose.
fn check_zip(file: File) -> std::result::Result<(), String> {
    let bad_zip = |error: zip::result::ZipError| format!("is a damaged zip archive: {error}");
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(bad_zip)?;
    for index in 0..archive.len() {
        let is_pickle = {
            let entry = archive.by_index_raw(index).map_err(bad_zip)?;
            entry.name_raw().ends_with(b".pkl")
        };
        if is_pickle {
            let entry = archive.by_index(index).map_err(bad_zip)?;
            pickle_gate::check(&mut BufReader::new(entry.take(MAX_PICKLE_SIZE)), 1)?;
        }
    }
    Ok(())
}
