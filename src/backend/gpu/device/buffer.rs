//! Device buffers.

use std::ops::Range;
use std::sync::{Arc, Weak};

use super::pool::Pool;

/// A range of a device buffer. Cloning shares the buffer.
#[derive(Clone, Debug)]
pub struct Buffer {
    pub(crate) lease: Arc<Lease>,
    offset: u64,
    bytes: u64,
}

impl Buffer {
    /// A buffer that returns to its pool when nothing refers to it any more.
    pub(crate) fn temporary(buffer: wgpu::Buffer, bytes: u64, pool: &Arc<Pool>) -> Buffer {
        Buffer::leased(Arc::new(Lease { buffer, pool: Arc::downgrade(pool), returns: true }), bytes)
    }

    /// A buffer whose memory is free again when nothing refers to it any more.
    pub(crate) fn permanent(buffer: wgpu::Buffer, bytes: u64, pool: &Arc<Pool>) -> Buffer {
        Buffer::leased(Arc::new(Lease { buffer, pool: Arc::downgrade(pool), returns: false }), bytes)
    }

    /// A buffer of the host application's, whose memory is its own affair.
    pub(crate) fn foreign(buffer: wgpu::Buffer) -> Buffer {
        let bytes = buffer.size();
        Buffer::leased(Arc::new(Lease { buffer, pool: Weak::new(), returns: false }), bytes)
    }

    pub(crate) fn leased(lease: Arc<Lease>, bytes: u64) -> Buffer {
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

    pub(crate) fn handle(&self) -> &wgpu::Buffer {
        &self.lease.buffer
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn is_temporary(&self) -> bool {
        self.lease.returns
    }
}

/// The one owner of a wgpu buffer; when it goes, a temporary buffer returns to its pool.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) buffer: wgpu::Buffer,
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
