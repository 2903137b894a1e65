//! Items of a NumPy file, as `np.save` writes it.

use std::ops::Range;
use std::path::{Path, PathBuf};

use half::f16;
use memmap2::Mmap;

use super::tokens::{LENGTHS, TokenFile};
use super::{CHUNK, ItemSource, Items};
use crate::tensor::Tensor;
use crate::{Error, Result, input, mapped};

/// What such a file begins with.
pub(super) const MAGIC: &[u8] = b"\x93NUMPY";

/// A mapped array.
struct Array {
    path: PathBuf,
    map: Mmap,
    /// Where the data begin.
    base: usize,
    /// NumPy's name of the element type: `<f4`.
    dtype: String,
    shape: Vec<usize>,
}

/// Items of the file at `path`: an array (N, D), or (N, P, D) of given components, of f64, f32 or f16. Their ids are the whole numbers (N) in the file beside it
/// whose name ends with `.ids.npy` instead of `.npy`, or 0 to N - 1 if there is none.
pub(super) fn items(path: &Path) -> Result<ItemSource<'static>> {
    let array = Array::open(path)?;
    let size = array.float_size()?;
    let (&[n, ref row @ ..], 2..=3) = (&array.shape[..], array.shape.len()) else {
        return Err(array.wrong(format!("an array of shape {:?}; expected (N, D) or (N, P, D)", array.shape)));
    };
    let row = row.to_vec();
    array.check_length(size)?;
    let dim: usize = row.iter().product();
    if dim == 0 {
        return Err(array.wrong("embeddings of width 0".to_string()));
    }
    let beside = path.with_extension("ids.npy");
    let ids = if beside.exists() { Some(ids(&beside)?) } else { None };
    if let Some(ids) = &ids
        && ids.len() != n
    {
        return Err(array.wrong(format!("{n} items, but {} ids in {}", ids.len(), beside.display())));
    }
    let chunk = move |first: usize| {
        let rows = first..n.min(first + CHUNK);
        let data = array.floats(size, rows.start * dim..rows.end * dim);
        let numbered = |rows: &Range<usize>| rows.clone().map(|row| row as u64).collect();
        let ids = ids.as_ref().map_or_else(|| numbered(&rows), |ids| ids[rows.clone()].to_vec());
        Ok(Items::new(ids, Tensor::new([&[rows.len()], &row[..]].concat(), data)?))
    };
    Ok(ItemSource::new(n, (0..n).step_by(CHUNK).map(chunk)))
}

/// Token embeddings of the file at `path`, see [`ItemSource::of_token_file`].
pub(super) fn tokens(path: &Path) -> Result<TokenFile> {
    let array = Array::open(path)?;
    let size = array.float_size()?;
    array.check_length(size)?;
    let beside = |name: &str| Some(path.with_extension(format!("{name}.npy"))).filter(|file| file.exists());
    let lengths = beside(LENGTHS).map(|file| integers(&file, LENGTHS, "a length")).transpose()?;
    let ids = beside("ids").map(|file| ids(&file)).transpose()?;
    let shape = array.shape.clone();
    TokenFile::new(path, &shape, ids, lengths, Box::new(move |numbers| array.floats(size, numbers)))
}

/// The whole numbers (N) of the file at `path`.
pub(super) fn ids(path: &Path) -> Result<Vec<u64>> {
    integers(path, "ids", "item id")
}

/// The whole numbers (N), `name`, of the file at `path`, each of which is a `what`.
fn integers(path: &Path, name: &str, what: &str) -> Result<Vec<u64>> {
    let array = Array::open(path)?;
    let size = match array.dtype.as_str() {
        "<i8" | "<u8" => 8,
        "<i4" | "<u4" => 4,
        other => return Err(array.wrong(format!("{name} of type `{other}`; expected i8, u8, i4 or u4, little-endian"))),
    };
    if array.shape.len() != 1 {
        return Err(array.wrong(format!("{name} of shape {:?}; expected (N)", array.shape)));
    }
    array.check_length(size)?;
    let bytes = &array.map[array.base..];
    let signed = |id: i64| u64::try_from(id).map_err(|_| array.wrong(format!("{what} {id}; expected 0 or more")));
    match array.dtype.as_str() {
        "<u8" => Ok(bytes.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect()),
        "<u4" => Ok(bytes.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes).into()).collect()),
        "<i4" => bytes.as_chunks().0.iter().map(|bytes| signed(i32::from_le_bytes(*bytes).into())).collect(),
        _ => bytes.as_chunks().0.iter().map(|bytes| signed(i64::from_le_bytes(*bytes))).collect(),
    }
}

impl Array {
    fn open(path: &Path) -> Result<Array> {
        let file = input::open(path).map_err(Error::io("open", path))?;
        let map = mapped::map(&file).map_err(Error::io("map", path))?;
        let header = parse(&map).ok_or_else(|| wrong(path, "a damaged header".to_string()))?;
        let Header { base, dtype, by_columns, shape } = header;
        let array = Array { path: path.to_path_buf(), map, base, dtype, shape };
        // With one axis both orders are the same.
        if by_columns && array.shape.len() > 1 {
            return Err(array.wrong("stored column by column (Fortran order)".to_string()));
        }
        Ok(array)
    }

    /// Bytes of a number of an array of floats.
    fn float_size(&self) -> Result<usize> {
        match self.dtype.as_str() {
            "<f8" => Ok(8),
            "<f4" => Ok(4),
            "<f2" => Ok(2),
            other => Err(self.wrong(format!("numbers of type `{other}`; expected f8, f4 or f2, little-endian"))),
        }
    }

    /// Some of the numbers, of `size` bytes each.
    fn floats(&self, size: usize, numbers: Range<usize>) -> Vec<f32> {
        let bytes = &self.map[self.base + numbers.start * size..self.base + numbers.end * size];
        match size {
            8 => bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes) as f32).collect(),
            4 => bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            _ => bytes.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect(),
        }
    }

    fn check_length(&self, size: usize) -> Result<()> {
        let expected = self.shape.iter().try_fold(size, |product, &extent| product.checked_mul(extent));
        let found = self.map.len() - self.base;
        if expected != Some(found) {
            return Err(self.wrong(format!("{found} bytes of data for the shape {:?}", self.shape)));
        }
        Ok(())
    }

    fn wrong(&self, what: String) -> Error {
        wrong(&self.path, what)
    }
}

fn wrong(path: &Path, what: String) -> Error {
    let fix =
        "save items with `np.save(path, np.ascontiguousarray(items, dtype='<f4'))`, ids with dtype='<i8'".to_string();
    Error::Checkpoint { path: path.to_path_buf(), what, fix }
}

struct Header {
    base: usize,
    dtype: String,
    by_columns: bool,
    shape: Vec<usize>,
}

/// The header: magic, version, length, and a Python dictionary with `descr`, `fortran_order` and `shape`.
fn parse(file: &[u8]) -> Option<Header> {
    let rest = file.strip_prefix(MAGIC)?;
    let (length, start) = match *rest.first()? {
        1 => (usize::from(u16::from_le_bytes(rest.get(2..4)?.try_into().ok()?)), MAGIC.len() + 4),
        2 | 3 => (u32::from_le_bytes(rest.get(2..6)?.try_into().ok()?) as usize, MAGIC.len() + 6),
        _ => return None,
    };
    let base = start.checked_add(length)?;
    let text = std::str::from_utf8(file.get(start..base)?).ok()?;
    let value = |key: &str| Some(text.split_once(&format!("'{key}':"))?.1.trim_start());
    let dtype = value("descr")?.strip_prefix('\'')?.split_once('\'')?.0.to_string();
    let order = value("fortran_order")?;
    let by_columns = order.starts_with("True");
    if !by_columns && !order.starts_with("False") {
        return None;
    }
    let extents = value("shape")?.strip_prefix('(')?.split_once(')')?.0;
    let extents = extents.split(',').map(str::trim).filter(|extent| !extent.is_empty());
    let shape = extents.map(|extent| extent.parse().ok()).collect::<Option<_>>()?;
    Some(Header { base, dtype, by_columns, shape })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
pub(super) mod tests {
    use super::*;

    /// As `np.save` writes it: the data begin at a multiple of 64 bytes.
    pub fn npy(version: u8, dtype: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}");
        let prefix = if version == 1 { 10 } else { 12 };
        let length = (prefix + header.len() + 1).next_multiple_of(64) - prefix;
        let mut file = [MAGIC, &[version, 0]].concat();
        match version {
            1 => file.extend((length as u16).to_le_bytes()),
            _ => file.extend((length as u32).to_le_bytes()),
        }
        file.extend(format!("{header:<width$}\n", width = length - 1).bytes());
        file.extend(data);
        file
    }

    fn bytes<const N: usize, T: Copy>(values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
        values.iter().flat_map(|&value| bytes(value)).collect()
    }

    fn read(path: &Path) -> Result<(Vec<u64>, Vec<f32>)> {
        let (mut ids, mut data) = (Vec::new(), Vec::new());
        for chunk in ItemSource::of_file(path)?.chunks {
            let chunk = chunk?;
            ids.extend(chunk.ids);
            data.extend(chunk.embeddings.data());
        }
        Ok((ids, data))
    }

    #[test]
    fn arrays_of_every_type_and_version_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("items.npy");
        let values = [1.0, -2.5, 3.0, 0.25, 5.0, 6.0];
        let wide: Vec<f64> = values.iter().map(|&value| f64::from(value)).collect();
        let narrow: Vec<f16> = values.iter().map(|&value| f16::from_f32(value)).collect();
        for (version, dtype, data) in [
            (1, "<f4", bytes(&values, f32::to_le_bytes)),
            (2, "<f8", bytes(&wide, f64::to_le_bytes)),
            (3, "<f2", bytes(&narrow, f16::to_le_bytes)),
        ] {
            std::fs::write(&path, npy(version, dtype, "(3, 2)", &data)).unwrap();
            assert_eq!(read(&path).unwrap(), (vec![0, 1, 2], values.to_vec()), "{dtype}");
        }
        let beside = folder.path().join("items.ids.npy");
        for (dtype, data) in
            [("<i8", bytes(&[7, 1 << 40, 9], i64::to_le_bytes)), ("<u8", bytes(&[7, 1 << 40, 9], u64::to_le_bytes))]
        {
            std::fs::write(&beside, npy(1, dtype, "(3,)", &data)).unwrap();
            assert_eq!(read(&path).unwrap().0, [7, 1 << 40, 9]);
            assert_eq!(ItemSource::ids_of_file(&beside).unwrap(), [7, 1 << 40, 9]);
        }
        std::fs::write(&beside, npy(1, "<i4", "(3,)", &bytes(&[7, -8, 9], i32::to_le_bytes))).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("item id -8; expected 0 or more"));
        std::fs::write(&beside, npy(1, "<u4", "(2,)", &bytes(&[7, 8], u32::to_le_bytes))).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("3 items, but 2 ids in"));
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("items.npy");
        let by_columns = String::from_utf8_lossy(&npy(1, "<f4", "(1, 2)", &[0; 8])[10..]).replace("False", "True ");
        let by_columns = [&npy(1, "<f4", "(1, 2)", &[])[..10], by_columns.as_bytes()].concat();
        for (file, words) in [
            (npy(1, ">f4", "(1, 2)", &[0; 8]), "numbers of type `>f4`"),
            (npy(1, "|O", "(1, 2)", &[0; 8]), "numbers of type `|O`"),
            (npy(1, "<f4", "(2,)", &[0; 8]), "shape [2]; expected (N, D) or (N, P, D)"),
            (npy(1, "<f4", "(2, 0)", &[]), "width 0"),
            (npy(1, "<f4", "(2, 2)", &[0; 12]), "12 bytes of data for the shape [2, 2]"),
            (npy(1, "<f4", "(9223372036854775807, 9)", &[0; 12]), "12 bytes of data"),
            (npy(1, "<f4", "(-1, 2)", &[0; 8]), "a damaged header"),
            (npy(1, "<f4", "(1, 2)", &[0; 8])[..20].to_vec(), "a damaged header"),
            (npy(9, "<f4", "(1, 2)", &[0; 8]), "a damaged header"),
            (MAGIC.to_vec(), "a damaged header"),
            (by_columns, "column by column"),
        ] {
            std::fs::write(&path, file).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("np.save"), "{words}: {error}");
        }
    }
}
