//! Device buffers, and the pool that temporary ones go back to.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
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
    /// A buffer that returns to its pool when nothing refers to it any more.
    pub(super) fn temporary(buffer: wgpu::Buffer, bytes: u64, pool: &Arc<Pool>) -> Buffer {
        Buffer::leased(Arc::new(Lease { buffer, pool: Arc::downgrade(pool), returns: true }), bytes)
    }

    /// A buffer whose memory is free again when nothing refers to it any more.
    pub(super) fn permanent(buffer: wgpu::Buffer, bytes: u64, pool: &Arc<Pool>) -> Buffer {
        Buffer::leased(Arc::new(Lease { buffer, pool: Arc::downgrade(pool), returns: false }), bytes)
    }

    /// A buffer of the host application's, whose memory is its own affair.
    pub(super) fn foreign(buffer: wgpu::Buffer) -> Buffer {
        let bytes = buffer.size();
        Buffer::leased(Arc::new(Lease { buffer, pool: Weak::new(), returns: false }), bytes)
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
        self.lease.returns
    }
}

/// The one owner of a wgpu buffer; when it goes, a temporary buffer returns to its pool.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) buffer: wgpu::Buffer,
    /// Gone where the device is.
    pool: Weak<Pool>,
    returns: bool,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(pool) = self.pool.upgrade() else { return };
        match self.returns {
            true => pool.put(self.buffer.clone()),
            false => pool.release(self.buffer.size()),
        }
    }
}

/// Buffers that nothing refers to any more, by usage and size.
///
/// Whoever records commands holds the leases of their buffers until the commands are submitted. So a buffer in the
/// pool is used by submitted work at most, and whatever its next user submits comes after that on the one queue.
///
/// The pool also counts the bytes of all buffers of its device, free ones included.
#[derive(Debug)]
pub(super) struct Pool {
    free: Mutex<Free>,
    in_use: AtomicU64,
    limit: AtomicU64,
}

impl Default for Pool {
    fn default() -> Pool {
        Pool { free: Mutex::default(), in_use: AtomicU64::new(0), limit: AtomicU64::new(u64::MAX) }
    }
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
        if free.bytes + buffer.size() <= POOL_BYTES && self.in_use() <= self.limit() {
            free.bytes += buffer.size();
            free.buffers.entry((buffer.usage().bits(), buffer.size())).or_default().push(buffer);
        } else {
            self.release(buffer.size());
        }
    }

    /// Bytes of all buffers.
    pub(super) fn in_use(&self) -> u64 {
        self.in_use.load(Ordering::Relaxed)
    }

    /// Most bytes of all buffers.
    pub(super) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    pub(super) fn set_limit(&self, bytes: u64) {
        self.limit.store(bytes, Ordering::Relaxed);
    }

    /// Counts a new buffer of `size` bytes, for which free ones are given up if it takes that; whether there is room.
    pub(super) fn reserve(&self, size: u64) -> bool {
        let more = |used: u64| used.checked_add(size).filter(|&all| all <= self.limit());
        let reserve = || self.in_use.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        reserve() || (self.give_up() > 0 && reserve())
    }

    /// A buffer of `size` bytes is no more.
    pub(super) fn release(&self, size: u64) {
        self.in_use.fetch_sub(size, Ordering::Relaxed);
    }

    /// Lets go of all free buffers; how many bytes they had.
    pub(super) fn give_up(&self) -> u64 {
        let free = std::mem::take(&mut *lock(&self.free));
        self.release(free.bytes);
        free.bytes
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
