//! Asks for memory before it is needed.

use std::ops::Range;

use crate::tables::{Table, Values};

/// Bytes of a cache line.
const LINE: usize = 64;

/// Lines of memory that will be needed next, to be asked for a few at a time between other work: a processor waits for none of
/// them, but has room for a dozen only, so that it would wait after all if many were asked for at once. Scans go through several
/// rows at a time, column by column, which no prefetcher expects. Memory of one thread.
#[derive(Default)]
pub struct Ahead {
    /// Addresses, which nobody reads from.
    lines: Vec<usize>,
    next: usize,
    per_pause: usize,
}

impl Ahead {
    /// Forgets what has not been asked for.
    pub fn clear(&mut self) {
        self.lines.clear();
        self.next = 0;
    }

    /// Adds the vectors `groups` of `items`, as far as these are there.
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
            self.lines.extend((start..start + part).step_by(LINE));
        }
    }

    /// There will be `n` pauses, in which to ask for all lines.
    #[inline(always)]
    pub fn pauses(&mut self, n: usize) {
        self.per_pause = (self.lines.len() - self.next).div_ceil(n.max(1));
    }

    /// Asks for some lines. Inlined into loops that keep sums in registers, which a call would have to save.
    #[inline(always)]
    pub fn pause(&mut self) {
        let end = self.lines.len().min(self.next + self.per_pause);
        for &line in &self.lines[self.next..end] {
            ask_for(line);
        }
        self.next = end;
    }
}

/// Asks for the cache line of an address, where there is an instruction for it.
#[allow(unsafe_code, reason = "the instruction takes a pointer; see the SAFETY comment")]
#[inline(always)]
pub fn ask_for(address: usize) {
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
    fn pauses_share_the_lines_of_all_tables() {
        let mut wide = Table::new(2, 40, Dtype::F32);
        wide.append(&[0.5; 10 * 80]);
        let mut narrow = Table::new(1, 3, Dtype::F16);
        narrow.append(&[0.5; 10 * 3]);
        let mut ahead = Ahead::default();
        // Of two items that are there and two that are not: three lines of 160 bytes each, and one of 12 for both.
        ahead.add(&wide, 1..2, 8..12);
        ahead.add(&narrow, 0..1, 8..12);
        ahead.add(&wide, 0..2, 12..14);
        let Values::F32(values) = wide.values() else { panic!("not what was made") };
        let place = |line: usize| ahead.lines[line] - values.as_slice().as_ptr() as usize;
        let places: Vec<usize> = (0..6).map(place).collect();
        assert_eq!(places, [2720, 2784, 2848, 3040, 3104, 3168]);
        assert_eq!(ahead.lines.len(), 7);
        ahead.pauses(3);
        let asked: Vec<usize> = (0..4)
            .map(|_| {
                ahead.pause();
                ahead.next
            })
            .collect();
        assert_eq!(asked, [3, 6, 7, 7]);
        ahead.clear();
        ahead.pauses(0);
        ahead.pause();
        assert_eq!((ahead.lines.len(), ahead.next), (0, 0));
    }
}
