//! Reads memory in its own order before it is needed in another.

use std::hint::black_box;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Brings `rows` into the cache, one after the other. Kernels that go through several rows at a time, column by column, ask for
/// lines in an order that no prefetcher expects, and wait for each; this order they all know. (Prefetch instructions would do
/// as well, but take pointers.)
#[inline(always)]
pub fn read_ahead<T: bytemuck::NoUninit>(rows: &[&[T]]) {
    let mut bits = 0;
    for row in rows {
        let bytes: &[u8] = bytemuck::cast_slice(row);
        bytes.chunks(LINE).for_each(|line| bits |= line[0]);
    }
    black_box(bits);
}
