//! The `--json` option.

use std::io::Write;
use std::path::{Path, PathBuf};

use rails_wgpu::{Result, atomic};

use crate::output::out;

/// Where `--json` goes.
pub enum JsonOutput {
    Stdout,
    File(PathBuf),
}

impl JsonOutput {
    /// Checks that the file can be written, without touching what it holds.
    pub fn open(path: &Path) -> Result<JsonOutput> {
        if path == Path::new("-") {
            return Ok(JsonOutput::Stdout);
        }
        atomic::check(path)?;
        Ok(JsonOutput::File(path.to_path_buf()))
    }

    pub fn write(&self, text: &str) -> Result<()> {
        match self {
            JsonOutput::Stdout => out!("{text}"),
            JsonOutput::File(path) => atomic::write(path, |file| file.write_all(text.as_bytes())),
        }
    }
}
