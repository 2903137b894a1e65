//! Checkpoint files as named f32 tensors.
//!
//! [`Checkpoint::open`] reads what PyTorch saved (`.pt`, `.pth`: zip and legacy) and `.safetensors`, told apart by
//! content. Nothing in a file is ever executed, and a pickle that asks for it is refused. [`Weights`] hands
//! the tensors to a model with their shapes checked. [`save_safetensors`] writes.

mod element;
mod instruction;
mod pickle;
mod pickle_gate;
mod pt;
mod save;
mod weights;

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::io::{Read, Seek};
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::tensor::Tensor;
use crate::{Error, Result, input, mapped, tensor_header};
use element::{Element, NotFinite};
pub use pickle::{Pickle, PickleValue};
pub use save::save_safetensors;
pub use weights::{MakeTensor, Weights};

/// What `torch.save` before 1.6 begins with: 0x1950a86a20f9469cfc6c, little-endian, inside a pickle.
const LEGACY_MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Prefix of `DistributedDataParallel`, around every name of the reference's checkpoints.
const DDP_PREFIX: &str = "module.";

/// Prefix of what fills the space between tensors in files of an index.
const PADDING: &str = "__";

/// Prefixes of earlier checkpoints, and what the reference calls them now (its eval_from_checkpoint.py).
const RENAMED: [(&str, &str); 1] =
    [("_ndp_module._item_proj_module.1.", "_ndp_module._item_embeddings_fn._item_emb_proj_module.1.")];

/// An open checkpoint: names, shapes and types are known, values are read by [`Checkpoint::tensor`].
pub struct Checkpoint {
    path: PathBuf,
    entries: BTreeMap<String, Entry>,
    metadata: Option<BTreeMap<String, String>>,
    bytes: Bytes,
}

/// The bytes behind [`Stored::Safetensors`] ranges.
enum Bytes {
    /// None: the tensors are in a `.pt` file or in memory, or there are none.
    Elsewhere,
    Mapped(Mmap),
    Embedded(&'static [u8]),
}

impl Bytes {
    fn get(&self, range: Range<usize>) -> Option<&[u8]> {
        match self {
            Bytes::Elsewhere => None,
            Bytes::Mapped(map) => map.get(range),
            Bytes::Embedded(bytes) => bytes.get(range),
        }
    }
}

struct Entry {
    dtype: Element,
    shape: Vec<usize>,
    stored: Stored,
}

enum Stored {
    Pt(pytorch_reader::Tensor),
    /// Byte range of a safetensors file.
    Safetensors(Range<usize>),
    Memory(Tensor),
}

impl Checkpoint {
    /// Opens the file at `path`; reads names and shapes only.
    ///
    /// Weights below a `model_state_dict`, `state_dict` or `model` key are taken from there; otherwise the file is a
    /// plain dictionary of tensors or a whole saved module. Optimizer state is left alone. Names lose the prefix
    /// `module.`, and names of earlier versions of the reference become the present ones.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::Checkpoint`] if it is damaged, of another kind, holds no
    /// tensor, or asks Python to run something; [`Error::Tensor`] if a tensor claims more bytes than the file can hold.
    pub fn open(path: impl AsRef<Path>) -> Result<Checkpoint> {
        let path = path.as_ref();
        let mut file = input::open(path).map_err(Error::io("open", path))?;
        let mut head = Vec::new();
        file.by_ref().take(64).read_to_end(&mut head).map_err(Error::io("read", path))?;
        file.rewind().map_err(Error::io("read", path))?;

        let (mut metadata, mut bytes) = (None, Bytes::Elsewhere);
        let found = if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
            pt::open(path, file, true)?
        } else if head.windows(LEGACY_MAGIC.len()).any(|bytes| bytes == LEGACY_MAGIC) {
            pt::open(path, file, false)?
        } else if head.get(8) == Some(&b'{') {
            let mapped = mapped::map(&file).map_err(Error::io("map", path))?;
            let (entries, header) = safetensors_entries(path, &mapped)?;
            (metadata, bytes) = (header, Bytes::Mapped(mapped));
            entries
        } else {
            let what = match &head[..] {
                [] => "the file is empty",
                [0x1f, 0x8b, ..] => "compressed with gzip; it must be unpacked first",
                [0x80, 2..=5, ..] => "a pickle that `torch.save` did not write",
                _ => "neither PyTorch's zip or legacy format nor safetensors",
            };
            let fix = match &head[..] {
                // What `save` of a model of RecTools writes.
                [0x80, 2..=5, ..] => format!(
                    "of a model of RecTools, write a checkpoint: python -c \"from rectools.models import load_model; \
                     load_model('{}').fit_trainer.save_checkpoint('model.ckpt')\"",
                    path.display()
                ),
                _ => "give a file that `torch.save` or `safetensors` wrote".to_string(),
            };
            return Err(Error::Checkpoint { path: path.to_path_buf(), what: what.to_string(), fix });
        };
        let entries = named(path, found)?;
        Ok(Checkpoint { path: path.to_path_buf(), entries, metadata, bytes })
    }

    /// A safetensors file that is part of the program; `path` is only named in errors.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if it is damaged.
    pub fn embedded(bytes: &'static [u8], path: &Path) -> Result<Checkpoint> {
        let (found, metadata) = safetensors_entries(path, bytes)?;
        let entries = named(path, found)?;
        Ok(Checkpoint { path: path.to_path_buf(), entries, metadata, bytes: Bytes::Embedded(bytes) })
    }

    /// Tensors in memory, as if they had been read from a file `path`, which is only named in errors.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if there is no tensor, or two share a name.
    pub fn from_tensors(tensors: Vec<(String, Tensor)>, path: impl AsRef<Path>) -> Result<Checkpoint> {
        let path = path.as_ref();
        let entry = |(name, tensor): (String, Tensor)| {
            let shape = tensor.shape().to_vec();
            (name, Entry { dtype: Element::F32, shape, stored: Stored::Memory(tensor) })
        };
        let entries = named(path, tensors.into_iter().map(entry).collect())?;
        Ok(Checkpoint { path: path.to_path_buf(), entries, metadata: None, bytes: Bytes::Elsewhere })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Extents of the tensor `name`, outermost first.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|entry| entry.shape.as_slice())
    }

    /// Stored element type of the tensor `name`: `f32`, `bf16`, `i64`, `bool`, ...
    pub fn dtype(&self, name: &str) -> Option<&'static str> {
        self.entries.get(name).map(|entry| entry.dtype.name())
    }

    /// What a file of `torch.save` in the zip format holds beside tensors: settings, ids. `None` for other files.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::Checkpoint`] if it is damaged.
    pub fn pickle(&self) -> Result<Option<Pickle>> {
        let is_pt = self.entries.values().any(|entry| matches!(entry.stored, Stored::Pt(_)));
        if is_pt { pt::pickle(&self.path) } else { Ok(None) }
    }

    /// The free-form metadata of a `.safetensors` file, if it has any.
    pub fn metadata(&self) -> Option<&BTreeMap<String, String>> {
        self.metadata.as_ref()
    }

    /// Reads the tensor `name` as dense row-major f32. Wider floats and integers are rounded to the nearest f32,
    /// booleans become 0 and 1.
    ///
    /// # Errors
    /// [`Error::Tensor`] if there is no such tensor, its bytes are damaged, or a value is not finite;
    /// [`Error::Io`] if the file cannot be read.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let error = |expected: &str, found: String| self.tensor_error(name, expected, found);
        let Some(entry) = self.entries.get(name) else {
            return Err(error("a tensor of this name", self.near_names(name)));
        };
        let decoded = match &entry.stored {
            Stored::Pt(tensor) => {
                let mut bytes = tensor.read().map_err(|source| match source.raw_os_error() {
                    Some(_) => Error::io("read", &self.path)(source),
                    None => error("readable data", source.to_string()),
                })?;
                if cfg!(target_endian = "big") {
                    bytes.chunks_exact_mut(tensor.dtype().size()).for_each(<[u8]>::reverse);
                }
                entry.dtype.decode(&bytes)
            }
            Stored::Memory(tensor) => match tensor.data().iter().position(|value| !value.is_finite()) {
                None => return Ok(tensor.clone()),
                Some(index) => Err(NotFinite { index, value: tensor.data()[index].into() }),
            },
            Stored::Safetensors(range) => {
                let bytes = self.bytes.get(range.clone());
                entry.dtype.decode(bytes.ok_or_else(|| error("data inside the file", format!("bytes {range:?}")))?)
            }
        };
        let data =
            decoded.map_err(|bad| error("finite f32 values", format!("{} at flat index {}", bad.value, bad.index)))?;
        if data.len() != entry.shape.iter().product::<usize>() {
            return Err(error(&format!("values for the shape {:?}", entry.shape), format!("{} values", data.len())));
        }
        Ok(Tensor::trusted(entry.shape.clone(), data))
    }

    fn tensor_error(&self, name: &str, expected: &str, found: String) -> Error {
        Error::Tensor { path: self.path.clone(), name: name.to_string(), expected: expected.to_string(), found }
    }

    /// Names that look most like `name`, for messages about a missing one.
    fn near_names(&self, name: &str) -> String {
        let shared = |other: &str| {
            let ahead = name.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
            let behind = name.bytes().rev().zip(other.bytes().rev()).take_while(|(a, b)| a == b).count();
            ahead + behind
        };
        let mut near: Vec<&str> = self.names().collect();
        near.sort_by_key(|other| std::cmp::Reverse(shared(other)));
        let near: Vec<String> = near.iter().take(3).map(|other| format!("`{other}`")).collect();
        format!("none among {} tensors; nearest: {}", self.entries.len(), near.join(", "))
    }
}

type SafetensorsParts = (Vec<(String, Entry)>, Option<BTreeMap<String, String>>);

fn safetensors_entries(path: &Path, bytes: &[u8]) -> Result<SafetensorsParts> {
    let damaged = |what: String| {
        let fix = "fetch or convert the file again".to_string();
        Error::Checkpoint { path: path.to_path_buf(), what, fix }
    };
    let (base, header) =
        tensor_header::read(bytes).map_err(|error| damaged(format!("damaged safetensors file: {error}")))?;
    let tensors = header.tensors().into_iter().filter(|(name, _)| !name.starts_with(PADDING));
    let entries = tensors.map(|(name, info)| {
        let dtype = Element::try_from(info.dtype)
            .map_err(|dtype| damaged(format!("tensor `{name}` has the unsupported type {dtype}")))?;
        let (start, end) = info.data_offsets;
        Ok((name, Entry { dtype, shape: info.shape.clone(), stored: Stored::Safetensors(base + start..base + end) }))
    });
    let metadata = header.metadata().as_ref().map(|map| map.clone().into_iter().collect());
    Ok((entries.collect::<Result<_>>()?, metadata))
}

/// Sorts the tensors by their present names.
fn named(path: &Path, found: Vec<(String, Entry)>) -> Result<BTreeMap<String, Entry>> {
    let error = |what| {
        let fix = "give a checkpoint of one model".to_string();
        Err(Error::Checkpoint { path: path.to_path_buf(), what, fix })
    };
    if found.is_empty() {
        return error("holds no tensors".to_string());
    }
    let mut entries = BTreeMap::new();
    for (stored_name, entry) in found {
        let name = stored_name.strip_prefix(DDP_PREFIX).unwrap_or(&stored_name);
        let renamed = RENAMED.iter().find_map(|(old, new)| name.strip_prefix(old).map(|rest| format!("{new}{rest}")));
        match entries.entry(renamed.unwrap_or_else(|| name.to_string())) {
            btree_map::Entry::Vacant(slot) => slot.insert(entry),
            btree_map::Entry::Occupied(slot) => return error(format!("holds two tensors named `{}`", slot.key())),
        };
    }
    Ok(entries)
}
