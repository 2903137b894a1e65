//! Device buffers, and the pool that temporary ones go back to.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Most bytes that the pool keeps for later.
const POOL_BYTES: u64 = 512 << 20;

/// A range of a device buffer. Cloning shares the buffer.
#[derive(Clone, Debug)]
pub struct Buffer {
    pub(super) lease: Arc<Lease>,
    offset: u64,
    bytes: u64,
}

impl Buffer {
    pub(super) fn new(buffer: wgpu::Buffer, bytes: u64, pool: Weak<Pool>) -> Buffer {
        Buffer::leased(Arc::new(Lease { buffer, pool }), bytes)
    }

    pub(super) fn leased(lease: Arc<Lease>, bytes: u64) -> Buffer {
        Buffer { lease, offset: 0, bytes }
    }

    /// Bytes of the range.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A part of this range, in bytes from its start; clipped to its end. A part that a kernel binds must start at a
    /// multiple of the device's `min_storage_buffer_offset_alignment`.
    pub fn slice(&self, range: Range<u64>) -> Buffer {
        let start = range.start.min(self.bytes);
        let end = range.end.clamp(start, self.bytes);
        Buffer { lease: self.lease.clone(), offset: self.offset + start, bytes: end - start }
    }

    pub(super) fn handle(&self) -> &wgpu::Buffer {
        &self.lease.buffer
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn is_temporary(&self) -> bool {
        self.lease.pool.strong_count() > 0
    }
}

/// The one owner of a wgpu buffer; when it goes, a temporary buffer returns to its pool.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) buffer: wgpu::Buffer,
    pool: Weak<Pool>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.put(self.buffer.clone());
        }
    }
}

/// Buffers that nothing refers to any more, by usage and size.
///
/// Whoever records commands holds the leases of their buffers until the commands are submitted. So a buffer in the
/// pool is used by submitted work at most, and whatever its next user submits comes after that on the one queue.
#[derive(Debug, Default)]
pub(super) struct Pool {
    free: Mutex<Free>,
}

#[derive(Debug, Default)]
struct Free {
    buffers: HashMap<(u32, u64), Vec<wgpu::Buffer>>,
    bytes: u64,
}

impl Pool {
    /// A free buffer of exactly this usage and size.
    pub(super) fn take(&self, usage: wgpu::BufferUsages, size: u64) -> Option<wgpu::Buffer> {
        let mut free = lock(&self.free);
        let buffer = free.buffers.get_mut(&(usage.bits(), size))?.pop()?;
        free.bytes -= size;
        Some(buffer)
    }

    fn put(&self, buffer: wgpu::Buffer) {
        let mut free = lock(&self.free);
        if free.bytes + buffer.size() <= POOL_BYTES {
            free.bytes += buffer.size();
            free.buffers.entry((buffer.usage().bits(), buffer.size())).or_default().push(buffer);
        }
    }

    /// Size that a temporary buffer of `bytes` is given, so that similar requests meet: an eighth of a power of two.
    pub(super) fn size_class(bytes: u64) -> u64 {
        let step = (bytes.max(256).next_power_of_two() / 8).max(256);
        bytes.max(1).next_multiple_of(step)
    }
}

/// The value of a mutex, even after another thread panicked: all values here are valid between any two statements.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::Pool;

    #[test]
    fn size_classes_are_few_and_never_too_small() {
        for bytes in [0, 1, 4, 255, 256, 257, 4096, 5000, 1 << 20, (1 << 20) + 4, 100_000_000] {
            let class = Pool::size_class(bytes);
            assert!(
                class >= bytes && class.is_multiple_of(256) && class - bytes <= (bytes / 4).max(256),
                "{bytes} -> {class}"
            );
            assert_eq!(Pool::size_class(class), class);
        }
    }
}
