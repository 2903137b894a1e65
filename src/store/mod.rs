//! A folder of immutable files of tensors that changes from one version to the next as a whole.
//!
//! A version is a small manifest and the files it names ([`Shard`]), with checksums of every byte: safetensors, and SQLite databases,
//! which are kept as they are. A reader
//! ([`Store::open`]) maps the files and takes no lock. A writer ([`Store::write`]) adds files beside them, then
//! replaces the manifest: at any moment, also after a power cut, the old or the new version is there. What the tensors mean
//! is not known here. The format is described in `docs/INDEX_FORMAT.md`.
//!
//! ```
//! use rails_wgpu::store::{Dtype, Store, TensorSpec};
//!
//! # fn main() -> rails_wgpu::Result<()> {
//! # let folder = tempfile::tempdir().expect("a folder");
//! # let folder = folder.path();
//! let store = Store::create(folder)?;
//! let transaction = store.write()?;
//! let ids = TensorSpec { name: "ids".to_string(), dtype: Dtype::U32, shape: vec![3] };
//! let mut file = transaction.file("items", &Default::default(), &[ids])?;
//! file.write("ids", &[7, 0, 0, 0, 8, 0, 0, 0])?;
//! file.write("ids", &[9, 0, 0, 0])?;
//! let name = file.finish()?;
//! let store = transaction.commit(serde_json::json!({ "items": name }))?;
//!
//! let shard = store.shard(&name)?;
//! shard.check("ids")?;
//! assert_eq!(shard.tensor("ids")?.values::<u32>(), Some(&[7, 8, 9][..]));
//! assert!(Store::verify(folder)?.is_sound());
//! # Ok(())
//! # }
//! ```

mod added;
mod checksum;
mod fault;
mod layout;
mod manifest;
mod shard;
mod transaction;
mod verify;
mod writer;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

pub use safetensors::Dtype;

use crate::{Error, Result, atomic};
pub(crate) use fault::RESTORE;
use manifest::{MANIFEST, Manifest};
pub use shard::{MappedTensor, Shard};
pub use transaction::Transaction;
pub use verify::{Damage, Report};
pub use writer::ShardWriter;

/// How often a reader starts again because a writer replaced the version under its hands.
const ATTEMPTS: usize = 100;

/// A tensor to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    /// Unique in its file, not empty, and not beginning with `__`.
    pub name: String,
    /// Type of the values.
    pub dtype: Dtype,
    /// The extent of each axis, outermost first.
    pub shape: Vec<usize>,
}

/// A type whose values can be read in place.
pub trait Value: bytemuck::Pod {
    /// What files call it.
    const DTYPE: Dtype;
}

macro_rules! values {
    ($($type:ty: $dtype:ident),*) => {
        $(impl Value for $type {
            const DTYPE: Dtype = Dtype::$dtype;
        })*
    };
}
values!(u8: U8, i8: I8, u16: U16, i16: I16, u32: U32, i32: I32, u64: U64, i64: I64, f32: F32, f64: F64);
values!(half::f16: F16, half::bf16: BF16);

/// One version of a folder, open for reading. It stays as it is whatever writers do.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
    manifest: Manifest,
    shards: BTreeMap<String, Shard>,
}

impl Store {
    /// Makes an empty version, generation 0 with the content `null`, in `folder`, which is created if it does not exist.
    ///
    /// # Errors
    /// [`Error::Index`] if the folder holds anything else, such as a version or the rest of one, or cannot be written.
    pub fn create(folder: impl AsRef<Path>) -> Result<Store> {
        let folder = folder.as_ref();
        little_endian(folder)?;
        if !folder.join(MANIFEST).exists()
            && let Some(name) = manifest::foreign(folder)
        {
            let what = format!("the folder holds something else: `{}`", name.to_string_lossy());
            return Err(Error::index(folder, what, "choose a new folder or an empty one"));
        }
        fs::create_dir_all(folder).and_then(|()| atomic::sync_folder(folder)).map_err(fault::writing(folder))?;
        let _lock = transaction::lock(folder)?;
        if folder.join(MANIFEST).exists() {
            return Err(Error::index(folder, "there is an index already", "open that one, or choose another folder"));
        }
        if manifest::has_shards(folder) {
            return Err(Error::index(folder, "there are files of an index whose manifest is missing", RESTORE));
        }
        let manifest = Manifest::new(0, Vec::new(), serde_json::Value::Null);
        manifest.write(folder)?;
        Ok(Store { folder: folder.to_path_buf(), manifest, shards: BTreeMap::new() })
    }

    /// Opens the latest version: reads and checks the manifest, maps all files, and checks their lengths and headers.
    /// Tensors are not read, see [`Shard::check`] and [`Store::verify`].
    ///
    /// # Errors
    /// [`Error::Index`] if there is none, it is of an unknown version of the format, or a file is missing or damaged.
    pub fn open(folder: impl AsRef<Path>) -> Result<Store> {
        let folder = folder.as_ref();
        latest(folder, |manifest| {
            let shards = manifest.files.iter().map(|entry| Ok((entry.name.clone(), Shard::open(folder, entry)?)));
            let shards = shards.collect::<Result<_>>()?;
            Ok(Store { folder: folder.to_path_buf(), manifest, shards })
        })?
    }

    /// Reads every byte of the latest version. The report lists all files that are damaged, missing, or of a wrong length.
    ///
    /// # Errors
    /// [`Error::Index`] if the manifest itself is missing, damaged, or of an unknown version.
    pub fn verify(folder: impl AsRef<Path>) -> Result<Report> {
        let folder = folder.as_ref();
        let checked = latest(folder, |manifest| {
            let report = verify::verify(folder, &manifest);
            if report.is_sound() { Ok(report) } else { Err(report) }
        })?;
        Ok(checked.unwrap_or_else(|damaged| damaged))
    }

    /// Begins a new version. There is one writer at a time, in all processes; readers are not disturbed.
    ///
    /// # Errors
    /// [`Error::Index`] if there is another writer, the folder cannot be written, or as [`Store::open`].
    pub fn write(&self) -> Result<Transaction> {
        Transaction::begin(&self.folder)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Number of the version: it grows by one with each commit.
    pub fn generation(&self) -> u64 {
        self.manifest.generation
    }

    /// What the layer above committed.
    pub fn content(&self) -> &serde_json::Value {
        &self.manifest.content
    }

    /// Whether both have the same version open, going by all checksums.
    pub(crate) fn is_same(&self, other: &Store) -> bool {
        self.manifest == other.manifest
    }

    /// All files, by name.
    pub fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.shards.values()
    }

    /// The file `name`.
    ///
    /// # Errors
    /// [`Error::Index`] if this version has no such file.
    pub fn shard(&self, name: &str) -> Result<&Shard> {
        let missing = || Error::index(&self.folder, format!("the manifest does not list a file `{name}`"), RESTORE);
        self.shards.get(name).ok_or_else(missing)
    }
}

/// What `attempt` makes of the latest version; it is repeated when it failed because a writer replaced that version and
/// removed its files. The outer error is that of the manifest.
fn latest<T, E>(folder: &Path, attempt: impl Fn(Manifest) -> Result<T, E>) -> Result<Result<T, E>> {
    little_endian(folder)?;
    let mut manifest = Manifest::read(folder)?;
    for _ in 1..ATTEMPTS {
        let generation = manifest.generation;
        let failed = match attempt(manifest) {
            Ok(done) => return Ok(Ok(done)),
            Err(failed) => failed,
        };
        manifest = Manifest::read(folder)?;
        if manifest.generation == generation {
            return Ok(Err(failed));
        }
    }
    Ok(attempt(manifest))
}

/// Files are little-endian and used in place.
fn little_endian(folder: &Path) -> Result<()> {
    if cfg!(target_endian = "big") {
        let what = "indexes are little-endian, this machine is big-endian";
        return Err(Error::index(folder, what, "use the index on a little-endian machine"));
    }
    Ok(())
}
