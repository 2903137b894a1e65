//! Opening the files that a user names.

use std::fs::{self, File, FileType};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::{Error, Result};

/// What a gzip file begins with.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Opens `path`, which must be a file: a pipe or a device could make its reader wait for ever.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    // Asked before it is opened: opening a pipe waits for a writer.
    let kind = fs::metadata(path)?.file_type();
    match kind.is_file() {
        true => File::open(path),
        false => Err(io::Error::new(ErrorKind::InvalidInput, format!("expected a file, found {}", name(kind)))),
    }
}

/// Opens a text file, which may be compressed with gzip, whatever its name.
///
/// # Errors
/// [`Error::Io`] if it cannot be read.
pub(crate) fn text(path: &Path) -> Result<Box<dyn BufRead>> {
    let opened = || {
        let mut file = open(path)?;
        let mut head = Vec::new();
        file.by_ref().take(GZIP.len() as u64).read_to_end(&mut head)?;
        file.rewind()?;
        let file = BufReader::with_capacity(1 << 16, file);
        Ok(if head == GZIP { decompressed(file) } else { Box::new(file) })
    };
    opened().map_err(Error::io("read", path))
}

/// What gzip made `compressed` of.
pub(crate) fn decompressed<'a>(compressed: impl BufRead + 'a) -> Box<dyn BufRead + 'a> {
    Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(compressed)))
}

/// Reads a text file of at most `most` bytes.
///
/// # Errors
/// [`Error::Io`] if it cannot be read, is longer, or is not UTF-8.
pub(crate) fn text_up_to(path: &Path, most: usize) -> Result<String> {
    let mut bytes = Vec::new();
    text(path)?.take(most as u64 + 1).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    let wrong = |what: String| Error::io("read", path)(io::Error::new(ErrorKind::InvalidData, what));
    if bytes.len() > most {
        return Err(wrong(format!("expected at most {most} bytes, found more")));
    }
    String::from_utf8(bytes).map_err(|_| wrong("expected UTF-8 text".to_string()))
}

/// What something that is no file is.
pub(crate) fn name(kind: FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return "a pipe";
        }
        if kind.is_socket() {
            return "a socket";
        }
        if kind.is_block_device() || kind.is_char_device() {
            return "a device";
        }
    }
    if kind.is_dir() { "a folder" } else { "something else" }
}
