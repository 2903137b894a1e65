//! The files that a transaction adds.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::manifest::FileEntry;

/// Filled by the writers of the files, which may be on several threads.
#[derive(Debug, Default)]
pub(super) struct Added(Mutex<Files>);

#[derive(Debug, Default)]
struct Files {
    /// Begun, whether complete or not.
    begun: usize,
    complete: Vec<FileEntry>,
}

impl Added {
    /// The number of the next file, from 1.
    pub fn begin(&self) -> usize {
        let mut files = self.files();
        files.begun += 1;
        files.begun
    }

    pub fn complete(&self, entry: FileEntry) {
        self.files().complete.push(entry);
    }

    /// The complete files.
    pub fn entries(&self) -> Vec<FileEntry> {
        self.files().complete.clone()
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        // Its fields are never left half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
