//! Items of a file: .safetensors here, .npy in a file of its own.

use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::tokens::{LENGTHS, TokenFile};
use super::{CHUNK, ItemSource, Items, npy};
use crate::tensor::Tensor;
use crate::{Error, Result, input, mapped, tensor_header};

/// A mapped file with `ids` (N) and, where they are asked for, `embeddings` (N, D).
struct ItemFile {
    path: PathBuf,
    map: Mmap,
    /// Where the data begin.
    base: usize,
    header: Metadata,
}

/// The tensor `embeddings` of a file.
struct Embeddings {
    dtype: Dtype,
    shape: Vec<usize>,
    /// Where its data begin.
    start: usize,
}

impl ItemSource<'_> {
    /// Items of a .safetensors file with tensors `ids` (N), of 32- or 64-bit integers, and `embeddings` (N, D) or, of
    /// given components, (N, P, D), f32, f16 or bf16; or of a .npy file with such an array of f64, f32 or f16, whose ids are in a .npy file beside it (those of
    /// `items.npy` in `items.ids.npy`) or, without one, 0 to N - 1. Content decides, not the name. The file is mapped and
    /// read a chunk at a time.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read; [`Error::Checkpoint`] if it is not such a file.
    pub fn of_file(path: impl AsRef<Path>) -> Result<ItemSource<'static>> {
        let path = path.as_ref();
        if is_npy(path)? {
            return npy::items(path);
        }
        let file = ItemFile::open(path)?;
        let (n, _) = file.ids()?;
        let embeddings = file.embeddings()?;
        let row = match embeddings.shape[..] {
            [rows, ref row @ ..] if rows == n && (1..=2).contains(&row.len()) && !row.contains(&0) => row.to_vec(),
            ref shape => {
                let expected = format!("[{n}, D] or [{n}, P, D], as many as ids");
                return Err(file.wrong(format!("`embeddings` of shape {shape:?}; expected {expected}")));
            }
        };
        let dim: usize = row.iter().product();
        let chunk = move |first: usize| {
            let rows = first..n.min(first + CHUNK);
            let data = file.floats(&embeddings, rows.start * dim..rows.end * dim);
            let embeddings = Tensor::trusted([&[rows.len()], &row[..]].concat(), data);
            Ok(Items::new(file.ids_of(rows)?, embeddings))
        };
        Ok(ItemSource::new(n, (0..n).step_by(CHUNK).map(chunk)))
    }

    /// Items with token embeddings, for late interaction. A .safetensors file has tensors `ids` (N) and `lengths` (N), of 32- or
    /// 64-bit integers, and `embeddings` (T, D), f32, f16 or bf16: the token embeddings of all items one after the other, of which
    /// `lengths` says how many each item has, at least one. A .npy file `items.npy` has the token embeddings (T, D), f64, f32 or
    /// f16, `items.lengths.npy` beside it the lengths (N), and `items.ids.npy` the ids (N), which are 0 to N - 1 if it is not there.
    /// Where all items have n of them, either file may have `embeddings` (N, n, D) and no lengths. Content decides, not the name.
    /// The file is mapped and read a chunk at a time.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read; [`Error::Checkpoint`] if it is not such a file, an item has no token embedding, or the
    /// lengths do not add up to T.
    pub fn of_token_file(path: impl AsRef<Path>) -> Result<ItemSource<'static>> {
        let path = path.as_ref();
        let file = if is_npy(path)? { npy::tokens(path)? } else { tokens(path)? };
        Ok(file.into_source())
    }

    /// The tensor `ids` (N) of a .safetensors file, or an array (N) of whole numbers in a .npy file, in file order.
    ///
    /// # Errors
    /// As [`ItemSource::of_file`].
    pub fn ids_of_file(path: impl AsRef<Path>) -> Result<Vec<u64>> {
        let path = path.as_ref();
        if is_npy(path)? {
            return npy::ids(path);
        }
        let file = ItemFile::open(path)?;
        let (n, _) = file.ids()?;
        file.ids_of(0..n)
    }
}

/// Token embeddings of a .safetensors file, see [`ItemSource::of_token_file`].
fn tokens(path: &Path) -> Result<TokenFile> {
    let file = ItemFile::open(path)?;
    let (n, _) = file.ids()?;
    let ids = file.ids_of(0..n)?;
    let lengths = match file.header.info(LENGTHS) {
        Some(_) => Some(file.integers(LENGTHS, "a length")?),
        None => None,
    };
    let embeddings = file.embeddings()?;
    let shape = embeddings.shape.clone();
    let read = move |numbers: Range<usize>| file.floats(&embeddings, numbers);
    TokenFile::new(path, &shape, Some(ids), lengths, Box::new(read))
}

fn is_npy(path: &Path) -> Result<bool> {
    let mut head = Vec::new();
    let opened = input::open(path).map_err(Error::io("open", path))?;
    opened.take(npy::MAGIC.len() as u64).read_to_end(&mut head).map_err(Error::io("read", path))?;
    Ok(head == npy::MAGIC)
}

impl ItemFile {
    fn open(path: &Path) -> Result<ItemFile> {
        let file = input::open(path).map_err(Error::io("open", path))?;
        let map = mapped::map(&file).map_err(Error::io("map", path))?;
        let (base, header) = tensor_header::read(&map).map_err(|error| wrong(path, error))?;
        Ok(ItemFile { path: path.to_path_buf(), map, base, header })
    }

    fn info(&self, name: &str) -> Result<&TensorInfo> {
        self.header.info(name).ok_or_else(|| self.wrong(format!("there is no tensor `{name}`")))
    }

    /// Bytes of a tensor in the file.
    fn range(&self, name: &str) -> Result<Range<usize>> {
        let (start, end) = self.info(name)?.data_offsets;
        Ok(self.base + start..self.base + end)
    }

    fn embeddings(&self) -> Result<Embeddings> {
        let info = self.info("embeddings")?;
        match info.dtype {
            Dtype::F32 | Dtype::F16 | Dtype::BF16 => {
                let start = self.range("embeddings")?.start;
                Ok(Embeddings { dtype: info.dtype, shape: info.shape.clone(), start })
            }
            other => Err(self.wrong(format!("`embeddings` of type {other}; expected F32, F16 or BF16"))),
        }
    }

    /// Some of the numbers of `embeddings`.
    fn floats(&self, embeddings: &Embeddings, numbers: Range<usize>) -> Vec<f32> {
        let size = embeddings.dtype.bitsize() / 8;
        let bytes = &self.map[embeddings.start + numbers.start * size..embeddings.start + numbers.end * size];
        match embeddings.dtype {
            Dtype::F32 => bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            Dtype::F16 => bytes.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect(),
            _ => bytes.as_chunks().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect(),
        }
    }

    /// Number and type of the ids.
    fn ids(&self) -> Result<(usize, Dtype)> {
        self.whole_numbers("ids")
    }

    fn ids_of(&self, rows: Range<usize>) -> Result<Vec<u64>> {
        self.integers_of("ids", "item id", rows)
    }

    /// How many whole numbers the tensor `name` has, and their type.
    fn whole_numbers(&self, name: &str) -> Result<(usize, Dtype)> {
        let info = self.info(name)?;
        match (info.dtype, &info.shape[..]) {
            (Dtype::I64 | Dtype::U64 | Dtype::I32 | Dtype::U32, &[n]) => Ok((n, info.dtype)),
            (dtype, shape) => Err(self
                .wrong(format!("`{name}` of type {dtype} and shape {shape:?}; expected [N] of I64, U64, I32 or U32"))),
        }
    }

    /// All numbers of the tensor `name`, each of which is a `what`.
    fn integers(&self, name: &str, what: &str) -> Result<Vec<u64>> {
        let (n, _) = self.whole_numbers(name)?;
        self.integers_of(name, what, 0..n)
    }

    fn integers_of(&self, name: &str, what: &str, rows: Range<usize>) -> Result<Vec<u64>> {
        let (_, dtype) = self.whole_numbers(name)?;
        let size = dtype.bitsize() / 8;
        let start = self.range(name)?.start;
        let bytes = &self.map[start + rows.start * size..start + rows.end * size];
        let signed = |id: i64| u64::try_from(id).map_err(|_| self.wrong(format!("{what} {id}; expected 0 or more")));
        match dtype {
            Dtype::U32 => Ok(bytes.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes).into()).collect()),
            Dtype::U64 => Ok(bytes.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect()),
            Dtype::I32 => bytes.as_chunks().0.iter().map(|bytes| signed(i32::from_le_bytes(*bytes).into())).collect(),
            _ => bytes.as_chunks().0.iter().map(|bytes| signed(i64::from_le_bytes(*bytes))).collect(),
        }
    }

    fn wrong(&self, what: String) -> Error {
        wrong(&self.path, what)
    }
}

fn wrong(path: &Path, what: String) -> Error {
    let fix = "give a .safetensors file with `ids` (N) and `embeddings` (N, D), or what `np.save` wrote".to_string();
    Error::Checkpoint { path: path.to_path_buf(), what, fix }
}
