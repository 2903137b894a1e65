//! The pool that temporary buffers go back to, and the count of a device's memory.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::lock::lock;

/// Most bytes that the pool keeps for later.
const POOL_BYTES: u64 = 512 << 20;

/// Buffers that nothing refers to any more, by usage and size.
///
/// Whoever records commands holds the leases of their buffers until the commands are submitted. So a buffer in the
/// pool is used by submitted work at most, and whatever its next user submits comes after that on the one queue.
///
/// The pool also counts the bytes of all buffers of its device, free ones included.
#[derive(Debug)]
pub(crate) struct Pool {
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
    pub(crate) fn take(&self, usage: wgpu::BufferUsages, size: u64) -> Option<wgpu::Buffer> {
        let mut free = lock(&self.free);
        let buffer = free.buffers.get_mut(&(usage.bits(), size))?.pop()?;
        free.bytes -= size;
        Some(buffer)
    }

    pub(crate) fn put(&self, buffer: wgpu::Buffer) {
        let mut free = lock(&self.free);
        if free.bytes + buffer.size() <= POOL_BYTES && self.in_use() <= self.limit() {
            free.bytes += buffer.size();
            free.buffers.entry((buffer.usage().bits(), buffer.size())).or_default().push(buffer);
        } else {
            self.release(buffer.size());
        }
    }

    /// Bytes of all buffers.
    pub(crate) fn in_use(&self) -> u64 {
        self.in_use.load(Ordering::Relaxed)
    }

    /// Most bytes of all buffers.
    pub(crate) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    pub(crate) fn set_limit(&self, bytes: u64) {
        self.limit.store(bytes, Ordering::Relaxed);
    }

    /// Counts a new buffer of `size` bytes, for which free ones are given up if it takes that; whether there is room.
    pub(crate) fn reserve(&self, size: u64) -> bool {
        let more = |used: u64| used.checked_add(size).filter(|&all| all <= self.limit());
        let reserve = || self.in_use.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        reserve() || (self.give_up() > 0 && reserve())
    }

    /// A buffer of `size` bytes is no more.
    pub(crate) fn release(&self, size: u64) {
        self.in_use.fetch_sub(size, Ordering::Relaxed);
    }

    /// Lets go of all free buffers; how many bytes they had.
    pub(crate) fn give_up(&self) -> u64 {
        let free = std::mem::take(&mut *lock(&self.free));
        self.release(free.bytes);
        free.bytes
    }

    /// Size that a temporary buffer of `bytes` is given, so that similar requests meet: an eighth of a power of two.
    pub(crate) fn size_class(bytes: u64) -> u64 {
        let step = (bytes.max(256).next_power_of_two() / 8).max(256);
        bytes.max(1).next_multiple_of(step)
    }
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
