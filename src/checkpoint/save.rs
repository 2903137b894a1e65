//! Writing `.safetensors` files.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::error::Parameter;
use crate::tensor::Tensor;
use crate::{Error, Result, atomic};

/// Name that the format reserves for metadata.
const METADATA: &str = "__metadata__";

/// Writes `tensors` as f32 and `metadata` to a `.safetensors` file at `path`, replacing it.
///
/// Tensors and metadata are written in the order of their names: the same input gives the same bytes. A
/// failure leaves an existing file as it was, see [`atomic::write()`].
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
        return Err(Error::argument(
            Parameter::Tensors,
            format!("unique names other than `{METADATA}`"),
            names.join(", "),
        ));
    }
    atomic::write(path, |out| write(out, &sorted, metadata))
}

fn write(
    out: &mut impl Write,
    tensors: &BTreeMap<&str, &Tensor>,
    metadata: &BTreeMap<String, String>,
) -> io::Result<()> {
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

    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    tensors.values().flat_map(|tensor| tensor.data()).try_for_each(|value| out.write_all(&value.to_le_bytes()))
}
