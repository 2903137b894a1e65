//! A file as a byte slice, without reading it.

use std::fs::File;

use memmap2::Mmap;

/// Maps the whole of `file` for reading.
#[allow(unsafe_code, reason = "memmap2 has no safe constructor; see the SAFETY comment")]
pub(super) fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the mapping is private to this crate, read-only, and every read of it is a bounds-checked slice
    // access whose bytes are copied out before they are interpreted; any bit pattern is a valid value. What no
    // program can rule out is another process truncating the file meanwhile, which the system answers with
    // SIGBUS: the same contract under which every reader maps safetensors files.
    unsafe { Mmap::map(file) }
}
