//! Writing one shard, block by block.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::PathBuf;

use super::added::Added;
use super::checksum::{BLOCK, Checksums, crc};
use super::fault;
use super::layout::{Layout, Section};
use super::manifest::FileEntry;
use crate::error::Parameter;
use crate::{Error, Result};

/// Writes the tensors of one new file, see [`Transaction::file`](super::Transaction::file).
///
/// Each tensor is written from its beginning to its end; different tensors may take turns. At most 1 MiB of each
/// unfinished tensor is held in memory.
#[derive(Debug)]
pub struct ShardWriter<'t> {
    added: &'t Added,
    name: String,
    path: PathBuf,
    file: File,
    layout: Layout,
    header_checksum: u32,
    /// As the sections of the layout.
    streams: Vec<Stream>,
}

/// How far a tensor has come.
#[derive(Clone, Debug, Default)]
struct Stream {
    /// Bytes taken, those in the buffer included.
    taken: usize,
    /// The block that is being filled.
    buffer: Vec<u8>,
    /// Of the blocks in the file.
    checksums: Vec<u32>,
}

impl<'t> ShardWriter<'t> {
    pub(super) fn create(
        added: &'t Added,
        path: PathBuf,
        name: String,
        (layout, header): (Layout, Vec<u8>),
    ) -> Result<ShardWriter<'t>> {
        // A new file or none: whatever has this name is not ours to overwrite.
        let created = File::create_new(&path).and_then(|mut file| file.write_all(&header).map(|()| file));
        let file = created.map_err(fault::writing(&path))?;
        let streams = vec![Stream::default(); layout.sections.len()];
        Ok(ShardWriter { added, name, path, file, layout, header_checksum: crc(&header), streams })
    }

    /// Appends `bytes`, little-endian and row-major, to the tensor `tensor`. Any number of bytes at a time.
    ///
    /// # Errors
    /// [`Error::Argument`] if the file has no such tensor or it gets more bytes than its shape has; [`Error::Index`]
    /// if the file cannot be written. After an error the file is of no use; the transaction goes on without it.
    pub fn write(&mut self, tensor: &str, mut bytes: &[u8]) -> Result<()> {
        let Some(position) = self.layout.position(tensor) else {
            return Err(Error::argument(Parameter::Tensor, format!("one of {}", self.name), format!("`{tensor}`")));
        };
        let (section, stream) = (&self.layout.sections[position], &mut self.streams[position]);
        if bytes.len() > section.bytes - stream.taken {
            return Err(Error::argument(
                Parameter::Tensor,
                format!("{} bytes for `{tensor}`", section.bytes),
                format!("{} and {} more", stream.taken, bytes.len()),
            ));
        }
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - stream.buffer.len()));
            stream.buffer.extend(now);
            stream.taken += now.len();
            bytes = later;
            if stream.buffer.len() == BLOCK || stream.taken == section.bytes {
                stream.flush(&mut self.file, section).map_err(fault::writing(&self.path))?;
            }
        }
        Ok(())
    }

    /// Ends the file, waits until it is on the disk, and adds it to the transaction. Returns its name.
    ///
    /// # Errors
    /// [`Error::Argument`] if a tensor is not complete; [`Error::Index`] if the file cannot be written.
    pub fn finish(self) -> Result<String> {
        let mut checksums = vec![self.header_checksum];
        for (section, stream) in self.layout.sections.iter().zip(self.streams) {
            // A write that failed left a block out.
            if stream.taken != section.bytes || stream.checksums.len() != section.n_blocks() {
                let expected = format!("{} bytes for `{}` of {}", section.bytes, section.name, self.name);
                return Err(Error::argument(Parameter::Tensor, expected, stream.taken));
            }
            checksums.extend(stream.checksums);
        }
        self.file.sync_all().map_err(fault::writing(&self.path))?;
        self.added.complete(FileEntry {
            name: self.name.clone(),
            bytes: self.layout.file_bytes() as u64,
            header_bytes: self.layout.header_bytes as u64,
            checksums: Checksums(checksums),
        });
        Ok(self.name)
    }
}

impl Stream {
    /// Writes the buffer, the next block, to its place; the last one with the padding.
    fn flush(&mut self, file: &mut File, section: &Section) -> io::Result<()> {
        let block = section.block(self.checksums.len());
        self.buffer.resize(block.len(), 0);
        file.seek(SeekFrom::Start(block.start as u64))?;
        file.write_all(&self.buffer)?;
        self.checksums.push(crc(&self.buffer));
        self.buffer.clear();
        if self.taken == section.bytes {
            self.buffer = Vec::new();
        }
        Ok(())
    }
}
