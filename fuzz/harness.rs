//! What the targets share: files that last for one input, and how an input becomes one.

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rails_wgpu::checkpoint::{Checkpoint, Weights};
use rails_wgpu::config::BlockNorm;
use rails_wgpu::import::{ImportOptions, Source, import, import_mol};
use rails_wgpu::model::{Model, Mol};
use tempfile::TempDir;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package is a folder of the repository")
}

/// A folder of this process, in memory where the system has such a place.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let make = || match Path::new("/dev/shm") {
        memory if memory.is_dir() => TempDir::new_in(memory),
        _ => TempDir::new(),
    };
    FOLDER.get_or_init(|| make().expect("a temporary folder can be made")).path()
}

/// A file of this process with these bytes.
pub fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder().join(name);
    std::fs::write(&path, bytes).expect("a temporary file can be written");
    path
}

/// Reads all of a checkpoint, as far as that goes, also as that of each other program.
pub fn read_checkpoint(path: &Path) {
    let Ok(checkpoint) = Checkpoint::open(path) else { return };
    let names: Vec<String> = checkpoint.names().map(str::to_string).collect();
    for name in names {
        let _ = checkpoint.tensor(&name);
    }
    // Of recurrent networks; of most transformers; of those whose file does not tell where norms are.
    let recurrent = ImportOptions::default().with_max_sequence_length(Some(6));
    let transformer = recurrent.clone().with_num_heads(Some(2));
    for options in [transformer.clone().with_block_norm(Some(BlockNorm::Post)), transformer, recurrent] {
        for (source, _) in Source::NAMES {
            if let Ok(Some(imported)) = import(&checkpoint, &options.clone().with_source(source.parse().ok())) {
                let tensors = Checkpoint::from_tensors(imported.tensors, path);
                let _ = tensors.and_then(|tensors| Model::load(&tensors, imported.config));
            }
        }
    }
    if let Ok(Some(imported)) = import_mol(&checkpoint) {
        let tensors = Checkpoint::from_tensors(imported.tensors, path);
        let _ = tensors.and_then(|tensors| Mol::load(&mut Weights::new(&tensors), &imported.config, imported.dim));
    }
}

/// A `.pt` file around a pickle, with a storage of 64 bytes.
pub fn pt(pickle: &[u8]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in [("archive/data.pkl", pickle), ("archive/data/0", &[7; 64]), ("archive/version", b"3\n")] {
        zip.start_file(name, stored).expect("memory can be written");
        zip.write_all(bytes).expect("memory can be written");
    }
    zip.finish().expect("memory can be written").into_inner()
}

/// The manifest of an index folder whose bytes after the checksum are `rest`.
pub fn manifest(rest: &[u8]) -> Vec<u8> {
    let head = format!("{{\n  \"crc32\": \"{:08x}", crc32fast::hash(rest));
    [head.as_bytes(), rest].concat()
}

/// What [`manifest`] was given.
pub fn rest_of_manifest(manifest: &[u8]) -> &[u8] {
    &manifest[self::manifest(b"").len()..]
}
