//! Reading everything.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::checksum::BLOCK;
use super::manifest::{FileEntry, Manifest};
use super::shard::{block_matches, damaged_block, parse_header, wrong_length};
use crate::input;

/// What [`Store::verify`](super::Store::verify) found.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// The version that was checked.
    pub generation: u64,
    /// Number of files beside the manifest.
    pub files: usize,
    /// Bytes that these files must have together.
    pub bytes: u64,
    /// Every file that is not what was written.
    pub damage: Vec<Damage>,
}

/// A file that is missing, damaged, or has a wrong length.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
}

impl Report {
    /// Whether all files are what was written.
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }
}

/// Checks all files of `manifest`. They are read, not mapped: a bad disk becomes a line of the report.
pub(super) fn verify(folder: &Path, manifest: &Manifest) -> Report {
    let damage = manifest.files.iter().filter_map(|entry| {
        let path = folder.join(&entry.name);
        let what = check_file(&path, entry).unwrap_or_else(|error| Some(format!("cannot be read: {error}")))?;
        Some(Damage { path, what })
    });
    Report {
        generation: manifest.generation,
        files: manifest.files.len(),
        bytes: manifest.files.iter().map(|entry| entry.bytes).fold(0, u64::saturating_add),
        damage: damage.collect(),
    }
}

/// What is wrong with a file, if anything.
fn check_file(path: &Path, entry: &FileEntry) -> io::Result<Option<String>> {
    let mut file = input::open(path)?;
    let found = file.metadata()?.len();
    if found != entry.bytes {
        return Ok(Some(wrong_length(entry, found)));
    }
    // Not more than the file has: the length was compared.
    let mut header = Vec::new();
    file.by_ref().take(entry.header_bytes).read_to_end(&mut header)?;
    let layout = match parse_header(entry, &header) {
        Ok(layout) => layout,
        Err(what) => return Ok(Some(what)),
    };
    let (mut first, mut n_damaged) = (None, 0);
    let mut buffer = vec![0; BLOCK];
    for section in &layout.sections {
        for block in 0..section.n_blocks() {
            let bytes = &mut buffer[..section.block(block).len()];
            file.read_exact(bytes)?;
            if !block_matches(entry, section, block, bytes) {
                n_damaged += 1;
                first.get_or_insert_with(|| damaged_block(section, block));
            }
        }
    }
    Ok(first.map(|first| if n_damaged == 1 { first } else { format!("{n_damaged} damaged blocks; {first}") }))
}
