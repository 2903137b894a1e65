//! The `--json` option.

use std::path::{Path, PathBuf};

use rails_wgpu::{Error, Result};

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
        std::fs::OpenOptions::new().append(true).create(true).open(path).map_err(Error::io("write", path))?;
        Ok(JsonOutput::File(path.to_path_buf()))
    }

    pub fn write(&self, text: &str) -> Result<()> {
        match self {
            JsonOutput::Stdout => {
                print!("{text}");
                Ok(())
            }
            JsonOutput::File(path) => std::fs::write(path, text).map_err(Error::io("write", path)),
        }
    }
}
