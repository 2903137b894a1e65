//! One file of an index, mapped into memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;

use super::checksum::crc;
use super::fault::{self, RESTORE};
use super::layout::{self, Layout, Section};
use super::manifest::{FileEntry, is_database};
use super::{Dtype, Value};
use crate::{Error, Result, input, mapped};

/// Name of the metadata in which a shard carries its own file name: no two headers, so no two of their checksums, are the
/// same, and a file under a wrong name is found when it is opened.
pub(super) const NAME: &str = "file";

/// An immutable file of tensors. Cloning shares the mapping.
#[derive(Clone, Debug)]
pub struct Shard {
    map: Arc<Mmap>,
    /// What is mapped, whatever has its name by now.
    file: Arc<File>,
    about: Arc<About>,
}

#[derive(Debug)]
struct About {
    path: PathBuf,
    entry: FileEntry,
    layout: Layout,
}

impl Shard {
    /// The tensor that stands for the whole of a database.
    pub const DATABASE: &'static str = layout::DATABASE;

    /// Maps the file of `entry` in `folder`; its length and its header are checked.
    pub(super) fn open(folder: &Path, entry: &FileEntry) -> Result<Shard> {
        let path = folder.join(&entry.name);
        let file = input::open(&path).map_err(fault::reading(&path))?;
        let found = file.metadata().map_err(fault::reading(&path))?.len();
        let damaged = |what: String| Error::index(&path, what, RESTORE);
        if found != entry.bytes {
            return Err(damaged(wrong_length(entry, found)));
        }
        let map = mapped::map(&file).map_err(fault::reading(&path))?;
        let header = usize::try_from(entry.header_bytes).ok().and_then(|len| map.get(..len));
        let layout = parse_header(entry, header.unwrap_or_default()).map_err(damaged)?;
        let about = About { path, entry: entry.clone(), layout };
        Ok(Shard { map: Arc::new(map), file: Arc::new(file), about: Arc::new(about) })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.about.path
    }

    /// The name that the [`Store`](super::Store) knows it by.
    pub fn name(&self) -> &str {
        &self.about.entry.name
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.about.entry.bytes
    }

    /// What was written beside the tensors, and the file's own name as `file`.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.about.layout.metadata
    }

    /// Names of all tensors, in the order of the file.
    pub fn tensors(&self) -> impl Iterator<Item = &str> {
        self.about.layout.sections.iter().map(|section| section.name.as_str())
    }

    /// The tensor `name`, mapped; nothing is read and its bytes are not checked, see [`Shard::check`].
    ///
    /// # Errors
    /// [`Error::Index`] if there is none.
    pub fn tensor(&self, name: &str) -> Result<MappedTensor> {
        let section = self.section(name)?;
        let shape = section.shape.as_slice().into();
        Ok(MappedTensor { map: Arc::clone(&self.map), range: section.range(), dtype: section.dtype, shape })
    }

    /// Reads the whole tensor `name` and compares it with its checksums.
    ///
    /// # Errors
    /// [`Error::Index`] if there is none or it is damaged.
    pub fn check(&self, name: &str) -> Result<()> {
        let section = self.section(name)?;
        let damaged = (0..section.n_blocks()).find(|&block| {
            let range = section.block(block);
            !block_matches(&self.about.entry, section, block, &self.map[range])
        });
        match damaged {
            None => Ok(()),
            Some(block) => Err(Error::index(&self.about.path, damaged_block(section, block), RESTORE)),
        }
    }

    /// Whether the file is as long as it was when it was mapped: to read beyond its end would end the process. Asks the system
    /// for its length and reads nothing.
    ///
    /// # Errors
    /// [`Error::Index`] if it is not.
    pub fn check_length(&self) -> Result<()> {
        let path = &self.about.path;
        let found = self.file.metadata().map_err(fault::reading(path))?.len();
        match found == self.bytes() {
            true => Ok(()),
            false => {
                let what = format!("it was changed while it was in use: {}", wrong_length(&self.about.entry, found));
                Err(Error::index(path, what, RESTORE))
            }
        }
    }

    /// Whether both are the same file, going by all of its checksums.
    pub(crate) fn is_same(&self, other: &Shard) -> bool {
        self.about.entry == other.about.entry
    }

    fn section(&self, name: &str) -> Result<&Section> {
        let layout = &self.about.layout;
        let missing = || {
            let names: Vec<&str> = self.tensors().collect();
            let what = format!("expected a tensor `{name}`, found {}", names.join(", "));
            Error::index(&self.about.path, what, "build the index again with this version of rails-wgpu")
        };
        layout.position(name).map(|position| &layout.sections[position]).ok_or_else(missing)
    }
}

/// A tensor of a [`Shard`], in place. Cloning shares the mapping, which lives as long as any tensor of it, even after the
/// file was removed or the [`Store`](super::Store) dropped.
#[derive(Clone, Debug)]
pub struct MappedTensor {
    map: Arc<Mmap>,
    range: Range<usize>,
    dtype: Dtype,
    shape: Arc<[usize]>,
}

impl MappedTensor {
    /// Its bytes, little-endian, row-major; they begin at a multiple of 64.
    pub fn bytes(&self) -> &[u8] {
        &self.map[self.range.clone()]
    }

    /// Type of its values.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The extent of each axis, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its values, row-major; `None` if they are of another type.
    pub fn values<T: Value>(&self) -> Option<&[T]> {
        if self.dtype != T::DTYPE {
            return None;
        }
        bytemuck::try_cast_slice(self.bytes()).ok()
    }
}

impl AsRef<[u8]> for MappedTensor {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

/// The layout that the header of a shard describes, if the header is what was written.
pub(super) fn parse_header(entry: &FileEntry, header: &[u8]) -> Result<Layout, String> {
    if entry.checksums.0.first() != Some(&crc(header)) {
        return Err("the header does not match its checksum".to_string());
    }
    let bytes = usize::try_from(entry.bytes).map_err(|_| "too large for this machine".to_string())?;
    let layout = match is_database(&entry.name) {
        true if header.is_empty() => Layout::of_database(bytes),
        true => Err("a database has none".to_string()),
        false => Layout::parse(header, bytes),
    };
    let layout = layout.map_err(|what| format!("the header is wrong: {what}"))?;
    if layout.n_checksums() != entry.checksums.0.len() {
        return Err("the manifest has another number of checksums than the file has blocks".to_string());
    }
    Ok(layout)
}

/// Whether `bytes` are those of block `block` of `section`.
pub(super) fn block_matches(entry: &FileEntry, section: &Section, block: usize, bytes: &[u8]) -> bool {
    entry.checksums.0.get(section.first_block + block) == Some(&crc(bytes))
}

/// Says that a block is damaged.
pub(super) fn damaged_block(section: &Section, block: usize) -> String {
    let Range { start, end } = section.block(block);
    format!("tensor `{}`: bytes {start}..{end} of the file do not match their checksum", section.name)
}

/// Says that the file has another length than `entry`.
pub(super) fn wrong_length(entry: &FileEntry, found: u64) -> String {
    format!("expected {} bytes, found {found}", entry.bytes)
}
