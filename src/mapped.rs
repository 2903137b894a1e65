//! A file as a byte slice, without reading it.

use std::fs::File;

use memmap2::Mmap;

/// Maps the whole of `file` for reading.
#[allow(unsafe_code, reason = "memmap2 has no safe constructor; see the SAFETY comment")]
pub(crate) fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: mappings are read-only and every read of one is a bounds-checked slice access. Checkpoints copy bytes out
    // before they interpret them. Shards of an index are also read in place, as integers and floats, for which any bit
    // pattern is a value; the store writes a shard under a new name before anyone can know of it, and never changes it
    // afterwards, it only removes the name, which leaves a mapping whole. What no program can rule out is another
    // process changing or truncating the file meanwhile (an index looks at the lengths of its files before each search, no
    // more can be done), which the system answers with other values or with SIGBUS: the
    // same contract under which every reader maps safetensors files.
    unsafe { Mmap::map(file) }
}
