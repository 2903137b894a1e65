//! What is known of the magnitudes of a table.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Stands for nothing known: a NaN.
const UNKNOWN: u32 = u32::MAX;

/// The largest magnitude in each block of rows of a table, as far as somebody has looked at it. Blocks have as many rows as the
/// device takes at a time that looks.
#[derive(Default)]
pub struct Magnitudes(OnceLock<Box<[AtomicU32]>>);

impl Magnitudes {
    /// The largest magnitude in a block, if it is known.
    #[inline]
    pub fn get(&self, block: usize) -> Option<f32> {
        let bits = self.0.get()?.get(block)?.load(Ordering::Relaxed);
        (bits != UNKNOWN).then(|| f32::from_bits(bits))
    }

    /// Keeps the largest magnitude in one of `blocks` blocks.
    pub fn set(&self, blocks: usize, block: usize, largest: f32) {
        let all = self.0.get_or_init(|| (0..blocks).map(|_| AtomicU32::new(UNKNOWN)).collect());
        if let Some(place) = all.get(block) {
            place.store(largest.to_bits(), Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Magnitudes {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "magnitudes of {} blocks", self.0.get().map_or(0, |blocks| blocks.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_known_when_somebody_has_looked_at_it() {
        let magnitudes = Magnitudes::default();
        assert_eq!(magnitudes.get(0), None);
        magnitudes.set(3, 1, 2.5);
        magnitudes.set(3, 2, 0.0);
        assert_eq!([0, 1, 2, 3].map(|block| magnitudes.get(block)), [None, Some(2.5), Some(0.0), None]);
    }
}
