//! Compiled pipelines that outlive the program, where the driver lets them.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::{cache, trusted};

/// Begins every file; then CRC-32 and length of the driver's bytes, little-endian, then these.
const MAGIC: &[u8; 16] = b"rails-pipelines1";

const HEADER: usize = MAGIC.len() + 4 + 8;

/// The pipeline cache of a device; it is written when the device goes, if there is anything new in it.
#[derive(Debug)]
pub(crate) struct Pipelines {
    cache: wgpu::PipelineCache,
    path: PathBuf,
    has_more: AtomicBool,
}

impl Pipelines {
    /// That of `device` in `folder`; `None` where devices have none.
    pub fn open(device: &wgpu::Device, folder: Option<&Path>) -> Option<Pipelines> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let path = folder?.join(wgpu::util::pipeline_cache_key(&device.adapter_info())?);
        // A file that is not there, or not one of ours, is as good as an empty one.
        let kept = std::fs::read(&path).ok();
        let data = kept.as_deref().and_then(unwrapped);
        Some(Pipelines { cache: trusted::pipeline_cache(device, data), path, has_more: AtomicBool::new(false) })
    }

    pub fn handle(&self) -> &wgpu::PipelineCache {
        &self.cache
    }

    /// Says that a pipeline was compiled.
    pub fn compiled(&self) {
        self.has_more.store(true, Ordering::Relaxed);
    }
}

impl Drop for Pipelines {
    fn drop(&mut self) {
        if self.has_more.load(Ordering::Relaxed)
            && let Some(data) = self.cache.get_data()
        {
            cache::write(&self.path, &wrapped(&data));
        }
    }
}

fn header(data: &[u8]) -> Vec<u8> {
    let (checksum, length) = (crc32fast::hash(data).to_le_bytes(), (data.len() as u64).to_le_bytes());
    [MAGIC.as_slice(), &checksum, &length].concat()
}

fn wrapped(data: &[u8]) -> Vec<u8> {
    [&header(data), data].concat()
}

/// The driver's bytes of a whole file.
fn unwrapped(file: &[u8]) -> Option<&[u8]> {
    let (found, data) = file.split_at_checked(HEADER)?;
    (found == header(data)).then_some(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_files_of_ours_are_read() {
        let file = wrapped(b"what a driver wrote");
        assert_eq!(unwrapped(&file), Some(b"what a driver wrote".as_slice()));
        assert_eq!(unwrapped(&wrapped(b"")), Some(b"".as_slice()));
        for at in 0..file.len() {
            let mut broken = file.clone();
            broken[at] ^= 1;
            assert_eq!(unwrapped(&broken), None, "byte {at}");
            assert_eq!(unwrapped(&file[..at]), None, "{at} bytes");
        }
        assert_eq!(unwrapped(&[file, vec![0]].concat()), None);
    }
}
