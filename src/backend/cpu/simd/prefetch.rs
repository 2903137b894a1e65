//! Prefetching: asking for memory before it is needed.

use std::ops::Range;

use crate::tables::{Table, Values};

/// Bytes of a cache line.
pub const CACHE_LINE: usize = 64;

/// Cache lines that will be needed next, prefetched a few at a time between other work: a processor has about a dozen buffers for
/// lines on their way, and stalls if more are asked for at once. Hardware prefetchers do not help here, since a scan reads several rows
/// at a time, column by column. Scratch memory of one thread.
#[derive(Default)]
pub struct PrefetchQueue {
    /// Their addresses, which are never read from.
    lines: Vec<usize>,
    next: usize,
    per_step: usize,
}

impl PrefetchQueue {
    /// Drops what has not been prefetched.
    pub fn clear(&mut self) {
        self.lines.clear();
        self.next = 0;
    }

    /// Adds the vectors `groups` of those of the `items` that the table has.
    pub fn add(&mut self, table: &Table, groups: Range<usize>, items: Range<usize>) {
        let bytes: &[u8] = match table.values() {
            Values::F32(values) => bytemuck::cast_slice(values.as_slice()),
            Values::F16(values) => bytemuck::cast_slice(values.as_slice()),
            Values::I8(values) => bytemuck::cast_slice(values.as_slice()),
        };
        let size = table.dtype().bytes();
        let (stride, vector) = (table.width() * size, table.group_width() * size);
        let items = items.start.min(table.rows())..items.end.min(table.rows());
        let first = bytes.as_ptr() as usize + groups.start * vector;
        let (parts, part) = match groups.len() * vector == stride {
            true => (0..1, items.len() * stride),
            false => (0..items.len(), groups.len() * vector),
        };
        for i in parts {
            let start = first + (items.start + i) * stride;
            self.lines.extend((start..start + part).step_by(CACHE_LINE));
        }
    }

    /// Adds a slice.
    pub fn add_values(&mut self, values: &[f32]) {
        self.lines.extend(lines(values));
    }

    /// Spreads all lines evenly over `n` calls of [`PrefetchQueue::step`].
    #[inline(always)]
    pub fn spread_over(&mut self, n: usize) {
        self.per_step = (self.lines.len() - self.next).div_ceil(n.max(1));
    }

    /// Prefetches the next lines. Always inlined: a call would spill the sums that the loops around it keep in registers.
    #[inline(always)]
    pub fn step(&mut self) {
        let end = self.lines.len().min(self.next + self.per_step);
        for &line in &self.lines[self.next..end] {
            prefetch(line);
        }
        self.next = end;
    }
}

/// The addresses of the cache lines of a slice that begins at one.
fn lines(values: &[f32]) -> impl Iterator<Item = usize> {
    let first = values.as_ptr() as usize;
    (first..first + size_of_val(values)).step_by(CACHE_LINE)
}

/// Prefetches a slice of a few cache lines.
#[inline(always)]
pub fn prefetch_values(values: &[f32]) {
    lines(values).for_each(prefetch);
}

/// Prefetches the cache line of an address on x86; does nothing elsewhere.
#[allow(unsafe_code, reason = "the instruction takes a pointer; see the SAFETY comment")]
#[inline(always)]
pub fn prefetch(address: usize) {
    #[cfg(target_arch = "x86")]
    use std::arch::x86::{_MM_HINT_T0, _mm_prefetch};
    #[cfg(target_arch = "x86_64")]
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

    // SAFETY: a prefetch reads nothing, changes nothing that a program can see, and may be given any address.
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    unsafe {
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::without_provenance(address));
    }
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64")))]
    let _ = address;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::Dtype;

    #[test]
    fn steps_share_the_lines_of_all_tables() {
        let mut wide = Table::new(2, 40, Dtype::F32);
        wide.append(&[0.5; 10 * 80]);
        let mut narrow = Table::new(1, 3, Dtype::F16);
        narrow.append(&[0.5; 10 * 3]);
        let mut queue = PrefetchQueue::default();
        // Two items that the table has and two that it has not: three lines for 160 bytes of each, and one for 12 bytes of both.
        queue.add(&wide, 1..2, 8..12);
        queue.add(&narrow, 0..1, 8..12);
        queue.add(&wide, 0..2, 12..14);
        let Values::F32(values) = wide.values() else { panic!("not what was made") };
        let place = |line: usize| queue.lines[line] - values.as_slice().as_ptr() as usize;
        let places: Vec<usize> = (0..6).map(place).collect();
        assert_eq!(places, [2720, 2784, 2848, 3040, 3104, 3168]);
        assert_eq!(queue.lines.len(), 7);
        queue.spread_over(3);
        let issued: Vec<usize> = (0..4)
            .map(|_| {
                queue.step();
                queue.next
            })
            .collect();
        assert_eq!(issued, [3, 6, 7, 7]);
        queue.clear();
        queue.spread_over(0);
        queue.step();
        assert_eq!((queue.lines.len(), queue.next), (0, 0));
    }
}
