//! The largest magnitudes in the tiles of a table, which bound the rounding errors of the prefilter.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bits of an unknown magnitude: a NaN.
const UNKNOWN: u32 = u32::MAX;

/// The largest magnitude in each tile of a table that does not change. A tile is unknown until a search computes it.
pub struct TileMagnitudes {
    n_tiles: usize,
    /// (n_tiles): bits of floats. Not allocated before the first one is known.
    bits: OnceLock<Box<[AtomicU32]>>,
}

impl TileMagnitudes {
    /// For a table of `n_tiles` tiles.
    pub fn new(n_tiles: usize) -> TileMagnitudes {
        TileMagnitudes { n_tiles, bits: OnceLock::new() }
    }

    /// The largest magnitude in a tile, if it is known.
    #[inline]
    pub fn get(&self, tile: usize) -> Option<f32> {
        let bits = self.bits.get()?.get(tile)?.load(Ordering::Relaxed);
        (bits != UNKNOWN).then(|| f32::from_bits(bits))
    }

    /// Keeps the largest magnitude in a tile.
    pub fn set(&self, tile: usize, largest: f32) {
        let bits = self.bits.get_or_init(|| (0..self.n_tiles).map(|_| AtomicU32::new(UNKNOWN)).collect());
        if let Some(place) = bits.get(tile) {
            place.store(largest.to_bits(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tile_is_known_once_it_was_set() {
        let magnitudes = TileMagnitudes::new(3);
        assert_eq!(magnitudes.get(0), None);
        magnitudes.set(1, 2.5);
        magnitudes.set(2, 0.0);
        assert_eq!([0, 1, 2, 3].map(|tile| magnitudes.get(tile)), [None, Some(2.5), Some(0.0), None]);
    }
}
