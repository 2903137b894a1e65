//! Writing `.safetensors` files.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::tensor::Tensor;
use crate::{Error, Result};

/// Name that the format reserves for metadata.
const METADATA: &str = "__metadata__";

/// Writes `tensors` as f32 and `metadata` to a `.safetensors` file at `path`, replacing it.
///
/// Tensors and metadata are written in the order of their names: the same input gives the same bytes. The data goes
/// to a temporary file in the same folder, reaches the disk, and then takes the name: a reader never sees half a
/// file, and a failure leaves an existing one as it was.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written, [`Error::Argument`] if two tensors share a name or one is called
/// `__metadata__`.
pub fn save_safetensors(
    path: impl AsRef<Path>,
    tensors: &[(String, Tensor)],
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let path = path.as_ref();
    let sorted: BTreeMap<&str, &Tensor> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    if sorted.len() != tensors.len() || sorted.contains_key(METADATA) {
        let names: Vec<&str> = tensors.iter().map(|(name, _)| name.as_str()).collect();
        return Err(Error::argument("tensors", format!("unique names other than `{METADATA}`"), names.join(", ")));
    }
    let file_name = path.file_name().ok_or_else(|| Error::argument("path", "a file name", path.display()))?;
    let mut temporary_name = std::ffi::OsString::from(".");
    temporary_name.push(file_name);
    temporary_name.push(format!(".{}.part", std::process::id()));
    let temporary = path.with_file_name(temporary_name);

    let written = write(&temporary, &sorted, metadata).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    written.and_then(|()| sync_folder(path)).map_err(Error::io("write", path))
}

fn write(path: &Path, tensors: &BTreeMap<&str, &Tensor>, metadata: &BTreeMap<String, String>) -> io::Result<()> {
    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert(METADATA.to_string(), json!(metadata));
    }
    let mut end = 0;
    for (name, tensor) in tensors {
        let start = end;
        end += size_of_val(tensor.data());
        let entry = json!({ "dtype": "F32", "shape": tensor.shape(), "data_offsets": [start, end] });
        header.insert((*name).to_string(), entry);
    }
    let mut header = Value::Object(header).to_string();
    // Data that begins at a multiple of 8 can be used in place by readers that map the file.
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));

    let mut out = BufWriter::new(OpenOptions::new().write(true).create_new(true).open(path)?);
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    for value in tensors.values().flat_map(|tensor| tensor.data()) {
        out.write_all(&value.to_le_bytes())?;
    }
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// Makes the new name itself durable, where folders can be synced.
fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
