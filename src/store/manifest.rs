//! The manifest: which files make up the present version, their checksums, and what the layer above wrote.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::checksum::{Checksums, DIGITS, crc, hex};
use super::fault::{self, RESTORE};
use super::layout::{ALIGN, MAX_HEADER};
use crate::{Error, Result, atomic, input};

pub(super) const MANIFEST: &str = "manifest.json";

/// Locked by the writer; never removed, since another process may be about to lock it.
pub(super) const LOCK: &str = "lock";

const FORMAT: &str = "rails-wgpu index";

/// Version of the format that this program writes, and the only one it reads.
const VERSION: u32 = 1;

/// What every version begins with; then come the checksum of all bytes after it, and those bytes.
const PREFIX: &str = "{\n  \"crc32\": \"";

/// Of files of tensors.
const TENSORS: &str = ".safetensors";

/// Of databases, which are kept as they are.
const DATABASE: &str = ".sqlite";

/// One version of the folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Manifest {
    format: String,
    version: u32,
    /// Grows by one with every commit.
    pub generation: u64,
    pub files: Vec<FileEntry>,
    pub content: Value,
}

/// What the manifest knows of a shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileEntry {
    pub name: String,
    pub bytes: u64,
    pub header_bytes: u64,
    #[serde(rename = "crc32")]
    pub checksums: Checksums,
}

/// The part of a manifest that no version changes.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: u32,
}

impl Manifest {
    pub fn new(generation: u64, files: Vec<FileEntry>, content: Value) -> Manifest {
        Manifest { format: FORMAT.to_string(), version: VERSION, generation, files, content }
    }

    /// Reads the manifest in `folder` and checks every byte of it.
    pub fn read(folder: &Path) -> Result<Manifest> {
        let path = folder.join(MANIFEST);
        let mut bytes = Vec::new();
        match input::open(&path).and_then(|mut file| file.read_to_end(&mut bytes)) {
            Ok(_) => Manifest::parse(&path, &bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(missing(folder)),
            Err(error) => Err(fault::reading(&path)(error)),
        }
    }

    /// Replaces the manifest in `folder`.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(MANIFEST);
        let failed = fault::writing(&path);
        let body = serde_json::to_string_pretty(self).map_err(|error| failed(error.into()))?;
        // The checksum becomes the first member of the same object.
        let rest = format!("\",{}\n", &body[1..]);
        let text = format!("{PREFIX}{}{rest}", hex(crc(rest.as_bytes())));
        atomic::write(&path, |out| out.write_all(text.as_bytes())).map_err(|error| match error {
            Error::Io { source, .. } => failed(source),
            other => failed(io::Error::other(other.to_string())),
        })
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Manifest> {
        let damaged = |what: String| Error::index(path, format!("the manifest is damaged: {what}"), RESTORE);
        let (digits, rest) = bytes
            .strip_prefix(PREFIX.as_bytes())
            .and_then(|bytes| bytes.split_at_checked(DIGITS))
            .ok_or_else(|| damaged("it does not begin with its checksum".to_string()))?;
        if digits != hex(crc(rest)).as_bytes() {
            return Err(damaged("it does not match its checksum".to_string()));
        }
        let head: Head = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if head.format != FORMAT {
            return Err(damaged(format!("expected the format `{FORMAT}`, found `{}`", head.format)));
        }
        if head.version != VERSION {
            let what = format!("format version {}, this program reads version {VERSION}", head.version);
            let fix =
                "use a version of rails-wgpu that reads it (upgrade if this one is older), or build the index again";
            return Err(Error::index(path, what, fix));
        }
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        manifest.check().map_err(damaged)?;
        Ok(manifest)
    }

    /// What a checksum cannot tell: whether the entries make sense, and stay inside the folder.
    fn check(&self) -> Result<(), String> {
        if self.generation == u64::MAX {
            return Err("no generation can follow it".to_string());
        }
        if self.names().len() != self.files.len() {
            return Err("a file is listed twice".to_string());
        }
        for FileEntry { name, bytes, header_bytes, checksums } in &self.files {
            if generation(OsStr::new(name)).is_none_or(|generation| generation > self.generation) {
                return Err(format!("`{name}` is not a name that the store gives"));
            }
            let possible =
                *header_bytes <= (*bytes).min(MAX_HEADER as u64) && header_bytes.is_multiple_of(ALIGN as u64);
            if !possible || checksums.0.is_empty() {
                return Err(format!("the entry of `{name}` is impossible"));
            }
        }
        Ok(())
    }

    fn names(&self) -> BTreeSet<&OsStr> {
        self.files.iter().map(|file| OsStr::new(&file.name)).collect()
    }

    /// Removes what an interrupted or replaced version left in `folder`; other people's files stay.
    ///
    /// A file that cannot be removed (some systems keep mapped ones) is left to the next writer.
    pub fn remove_unreferenced(&self, folder: &Path) {
        let names = self.names();
        let Ok(entries) = fs::read_dir(folder) else { return };
        for name in entries.flatten().map(|entry| entry.file_name()) {
            let ours = generation(&name).is_some() || is_temporary(&name);
            if ours
                && !names.contains(name.as_os_str())
                && let Err(error) = fs::remove_file(folder.join(&name))
            {
                log::warn!("cannot remove the unused file {}: {error}", folder.join(&name).display());
            }
        }
    }
}

/// A name that no other version has: `00000007-0002-items.safetensors`.
pub(super) fn file_name(generation: u64, number: usize, stem: &str) -> String {
    format!("{generation:08}-{number:04}-{stem}{TENSORS}")
}

/// The same for a database.
pub(super) fn database_name(generation: u64, number: usize, stem: &str) -> String {
    format!("{generation:08}-{number:04}-{stem}{DATABASE}")
}

/// Whether a file of this name is a database.
pub(super) fn is_database(name: &str) -> bool {
    name.ends_with(DATABASE)
}

/// The generation in a name that [`file_name`] or [`database_name`] made.
fn generation(name: &OsStr) -> Option<u64> {
    let name = name.to_str()?;
    let mut parts = name.strip_suffix(TENSORS).or_else(|| name.strip_suffix(DATABASE))?.splitn(3, '-');
    let mut number = |digits: usize| {
        let part = parts.next()?;
        let valid = part.len() >= digits && part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse::<u64>().ok().filter(|_| valid)
    };
    let (generation, _) = (number(8)?, number(4)?);
    is_stem(parts.next()?).then_some(generation)
}

/// Whether every file system can store a file of this name.
pub(super) fn is_stem(stem: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=64).contains(&stem.len()) && stem.bytes().all(allowed)
}

/// Whether [`atomic::write`] gives this name to a manifest that is not complete.
fn is_temporary(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(format!(".{MANIFEST}.").as_bytes()) && name.ends_with(b".tmp")
}

/// Whether `folder` holds files that only a manifest can explain.
pub(super) fn has_shards(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name()).any(|name| generation(&name).is_some())
}

/// The first name in `folder` that no store gives, if there is any.
pub(super) fn foreign(folder: &Path) -> Option<OsString> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let ours = |name: &OsString| name == LOCK || name == MANIFEST || is_temporary(name) || generation(name).is_some();
    entries.map(|entry| entry.file_name()).filter(|name| !ours(name)).min()
}

fn missing(folder: &Path) -> Error {
    if has_shards(folder) {
        return Error::index(&folder.join(MANIFEST), "the manifest is missing", RESTORE);
    }
    let fix = "give the folder of an index, or make one with `rails-bench index build`";
    Error::index(folder, format!("there is no index here, no file {MANIFEST}"), fix)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use serde_json::json;

    use super::*;

    fn manifest() -> Manifest {
        let files = [3, 5].map(|generation| FileEntry {
            name: file_name(generation, 0, "items"),
            bytes: 192,
            header_bytes: 128,
            checksums: Checksums(vec![7, 8]),
        });
        Manifest::new(5, files.to_vec(), json!({ "dim": 50, "kinds": ["a", "b"] }))
    }

    fn written(manifest: &Manifest) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        manifest.write(folder.path()).unwrap();
        assert_eq!(&Manifest::read(folder.path()).unwrap(), manifest);
        fs::read(folder.path().join(MANIFEST)).unwrap()
    }

    /// The text with its checksum made right.
    fn sealed(text: &str) -> Vec<u8> {
        let rest = &text[PREFIX.len() + DIGITS..];
        format!("{PREFIX}{}{rest}", hex(crc(rest.as_bytes()))).into_bytes()
    }

    fn error(bytes: &[u8]) -> String {
        Manifest::parse(Path::new("folder/manifest.json"), bytes).unwrap_err().to_string()
    }

    #[test]
    fn every_flipped_bit_and_every_missing_or_additional_byte_is_found() {
        let bytes = written(&manifest());
        serde_json::from_slice::<Value>(&bytes).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(error(&flipped).contains("manifest is damaged"), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(error(&bytes[..len]).contains("manifest is damaged"), "length {len}");
            let mut longer = bytes.clone();
            longer.insert(len, b' ');
            assert!(error(&longer).contains("manifest is damaged"), "space at {len}");
        }
    }

    #[test]
    fn other_versions_and_formats_are_refused() {
        let text = String::from_utf8(written(&manifest())).unwrap();
        assert_eq!(sealed(&text), text.as_bytes());
        let newer = error(&sealed(&text.replace("\"version\": 1", "\"version\": 2, \"new\": 1")));
        assert!(newer.contains("format version 2") && newer.contains("upgrade"), "{newer}");
        assert!(error(&sealed(&text.replace("wgpu index", "wgpu other"))).contains("`rails-wgpu other`"));
    }

    #[test]
    fn nonsense_with_a_right_checksum_is_refused() {
        let text = String::from_utf8(written(&manifest())).unwrap();
        let cases = [
            ("00000003-0000-items.safetensors", "../../etc/passwd", "not a name"),
            ("00000003-0000-items.safetensors", "00000003-0000-a/../b.safetensors", "not a name"),
            ("00000003-0000-items.safetensors", "00000006-0000-items.safetensors", "not a name"),
            ("00000003-0000-items.safetensors", "00000005-0000-items.safetensors", "twice"),
            ("\"header_bytes\": 128", "\"header_bytes\": 256", "impossible"),
            ("\"header_bytes\": 128", "\"header_bytes\": 127", "impossible"),
            ("\"header_bytes\": 128", "\"header_bytes\": -1", "integer"),
            ("0000000700000008", "", "impossible"),
            ("0000000700000008", "000000070000000", "hexadecimal"),
            ("\"generation\": 5", "\"generation\": 18446744073709551615", "follow"),
            ("\"bytes\": 192", "\"octets\": 192", "octets"),
        ];
        for (from, to, word) in cases {
            let message = error(&sealed(&text.replacen(from, to, 1)));
            assert!(message.contains("manifest is damaged") && message.contains(word), "{to}: {message}");
        }
    }

    #[test]
    fn only_files_of_the_store_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let keep = ["00000003-0000-items.safetensors", "model.safetensors", "3-0-items.safetensors", "lock", "a.tmp"];
        let remove = [
            "00000003-0001-items.safetensors",
            "100000000-0000-a-b.safetensors",
            "00000003-0002-attributes.sqlite",
            ".manifest.json.77.tmp",
        ];
        for name in keep.iter().chain(&remove) {
            fs::write(folder.path().join(name), "").unwrap();
        }
        manifest().remove_unreferenced(folder.path());
        assert!(keep.iter().all(|name| folder.path().join(name).exists()));
        assert!(!remove.iter().any(|name| folder.path().join(name).exists()));
    }

    #[test]
    fn a_folder_without_a_manifest_is_told_from_one_that_lost_it() {
        let folder = tempfile::tempdir().unwrap();
        let message = || Manifest::read(folder.path()).unwrap_err().to_string();
        assert!(message().contains("no index here"), "{}", message());
        fs::write(folder.path().join(file_name(1, 0, "items")), "").unwrap();
        assert!(message().contains("manifest is missing"), "{}", message());
    }
}
