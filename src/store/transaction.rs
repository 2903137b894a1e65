//! One new version of a folder: files are added and removed, then all of it happens at once or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::Path;

use serde_json::Value;

use super::added::Added;
use super::layout::Layout;
use super::manifest::{FileEntry, LOCK, MANIFEST, Manifest, database_name, file_name, is_stem};
use super::shard::{NAME, Shard};
use super::writer::ShardWriter;
use super::{Store, TensorSpec, fault};
use crate::error::Parameter;
use crate::{Error, Result, atomic, input};

/// The only writer of a folder, from [`Store::write`] to [`Transaction::commit`]. Dropped without a commit, it removes
/// what it wrote.
#[derive(Debug)]
pub struct Transaction {
    base: Store,
    removed: BTreeSet<String>,
    added: Added,
    _lock: Lock,
}

impl Transaction {
    /// Waits for nobody: fails if `folder` has another writer.
    pub(super) fn begin(folder: &Path) -> Result<Transaction> {
        let lock = lock(folder)?;
        let base = Store::open(folder)?;
        base.manifest.remove_unreferenced(folder);
        Ok(Transaction { base, removed: BTreeSet::new(), added: Added::default(), _lock: lock })
    }

    /// The version that this transaction changes: the latest, which may be newer than the store it was begun from.
    pub fn base(&self) -> &Store {
        &self.base
    }

    /// Begins a new file that will hold `tensors`, in this order, and `metadata`. `stem` becomes part of its name. Several
    /// files may be written at the same time, also from several threads.
    ///
    /// # Errors
    /// [`Error::Argument`] if `stem` is not 1 to 64 of `a-z A-Z 0-9 _ -`, if two tensors have the same name or one
    /// is empty or begins with `__`, if a shape is impossible, or if the metadata has a `file`; [`Error::Index`] if the
    /// file cannot be written.
    pub fn file(
        &self,
        stem: &str,
        metadata: &BTreeMap<String, String>,
        tensors: &[TensorSpec],
    ) -> Result<ShardWriter<'_>> {
        check_stem(stem)?;
        if metadata.contains_key(NAME) {
            return Err(Error::argument(Parameter::Metadata, format!("keys other than `{NAME}`"), NAME));
        }
        let name = file_name(self.generation(), self.added.begin(), stem);
        let mut metadata = metadata.clone();
        metadata.insert(NAME.to_string(), name.clone());
        let plan = Layout::plan(metadata, tensors).map_err(|found| {
            Error::argument(
                Parameter::Tensors,
                "unique names that do not begin with `__`, and shapes that fit memory",
                found,
            )
        })?;
        ShardWriter::create(&self.added, self.base.folder().join(&name), name, plan)
    }

    /// Writes a new file `*.sqlite` that holds nothing but `database`, for programs that open such databases. Returns its name;
    /// its [`Shard`] has the one tensor [`Shard::DATABASE`].
    ///
    /// # Errors
    /// [`Error::Argument`] if `stem` is wrong as in [`Transaction::file`], or the length is no multiple of 64, as those of databases are;
    /// [`Error::Index`] if the file cannot be written.
    pub fn database(&self, stem: &str, database: &[u8]) -> Result<String> {
        check_stem(stem)?;
        let name = database_name(self.generation(), self.added.begin(), stem);
        let layout = Layout::of_database(database.len()).map_err(|found| {
            Error::argument(Parameter::Tensors, "a database, whose length is a multiple of 64 bytes", found)
        })?;
        let path = self.base.folder().join(&name);
        let mut file = ShardWriter::create(&self.added, path, name, (layout, Vec::new()))?;
        file.write(Shard::DATABASE, database)?;
        file.finish()
    }

    /// The file `name`, a finished new one or one of the base version.
    ///
    /// # Errors
    /// [`Error::Index`] if there is none, or it cannot be read.
    pub fn shard(&self, name: &str) -> Result<Shard> {
        match self.added.entries().iter().find(|entry| entry.name == name) {
            Some(entry) => Shard::open(self.base.folder(), entry),
            None => self.base.shard(name).cloned(),
        }
    }

    /// Leaves the file `name` of the base version out of the new one. All others stay.
    ///
    /// # Errors
    /// [`Error::Argument`] if the base version has no such file.
    pub fn remove(&mut self, name: &str) -> Result<()> {
        if !self.base.shards.contains_key(name) {
            return Err(Error::argument(Parameter::File, "a file of the index", name));
        }
        self.removed.insert(name.to_string());
        Ok(())
    }

    /// Makes the new version: what was kept, what was added, and `content`, which replaces that of the base version.
    /// When this returns, the version is on the disk; then files that it does not have are removed.
    ///
    /// # Errors
    /// [`Error::Index`] if something cannot be written; the base version stays.
    pub fn commit(self, content: Value) -> Result<Store> {
        let folder = self.base.folder();
        let kept = self.base.manifest.files.iter().filter(|entry| !self.removed.contains(&entry.name));
        let mut entries: Vec<FileEntry> = kept.cloned().collect();
        let mut shards = self.base.shards.clone();
        shards.retain(|name, _| !self.removed.contains(name));
        for entry in self.added.entries() {
            shards.insert(entry.name.clone(), Shard::open(folder, &entry)?);
            entries.push(entry);
        }
        let manifest = Manifest::new(self.generation(), entries, content);

        // Names first, then the manifest that mentions them.
        atomic::sync_folder(&folder.join(MANIFEST)).map_err(fault::writing(folder))?;
        manifest.write(folder)?;
        manifest.remove_unreferenced(folder);
        Ok(Store { folder: folder.to_path_buf(), manifest, shards })
    }

    fn generation(&self) -> u64 {
        self.base.generation() + 1
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        // Only as long as the base version is in place: after a commit, or one that failed so late that the new manifest
        // may have arrived, nothing may be removed here.
        if let Ok(manifest) = Manifest::read(self.base.folder())
            && manifest == self.base.manifest
        {
            manifest.remove_unreferenced(self.base.folder());
        }
    }
}

/// Keeps other writers out. The system also unlocks for a killed process.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a process that another thread is just starting holds a copy of the open file.
        if let Err(error) = self.0.unlock() {
            log::warn!("cannot unlock the index: {error}");
        }
    }
}

fn check_stem(stem: &str) -> Result<()> {
    match is_stem(stem) {
        true => Ok(()),
        false => Err(Error::argument(Parameter::FileName, "1 to 64 letters, digits, `_` or `-`", stem)),
    }
}

/// Locks `folder` against other writers.
pub(super) fn lock(folder: &Path) -> Result<Lock> {
    let path = folder.join(LOCK);
    // A link would have its target made, a pipe would wait for ever.
    if let Ok(metadata) = fs::symlink_metadata(&path)
        && !metadata.is_file()
    {
        let kind = if metadata.is_symlink() { "a symbolic link" } else { input::name(metadata.file_type()) };
        return Err(Error::index(&path, format!("expected a file, found {kind}"), "remove it, then run this again"));
    }
    let opened = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = opened.map_err(fault::writing(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => {
            let fix = "wait until it has finished and run this again; reading is possible meanwhile";
            Err(Error::index(folder, "another program is writing this index", fix))
        }
        Err(TryLockError::Error(error)) => Err(fault::writing(&path)(error)),
    }
}
