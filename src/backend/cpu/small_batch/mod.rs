//! Kernels for batches of up to four queries, and a prefilter for single queries.
//!
//! They multiply items as they lie in memory: turning a tile of items into lanes ([`dot`](super::dot)) takes longer than multiplying it
//! where few queries share the tile. They need AVX2. Without it their constructors return `None`, and all batches go through lanes.

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod prefilter;
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod prefilter_element;
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod prefilter_float;
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod prefilter_i8;
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod quad;
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod small_batch_f32;
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod small_batch_i8;
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod tile_magnitudes;

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
pub use {
    prefilter::Prefilter, small_batch_f32::SmallBatchF32, small_batch_i8::small_batch_i8,
    tile_magnitudes::TileMagnitudes,
};

#[cfg(not(any(target_arch = "x86", target_arch = "x86_64")))]
pub use stub::{Prefilter, SmallBatchF32, TileMagnitudes, small_batch_i8};

/// The same names without AVX2: types that have no values.
#[cfg(not(any(target_arch = "x86", target_arch = "x86_64")))]
mod stub {
    use std::marker::PhantomData;
    use std::ops::Range;

    use crate::backend::cpu::dot::micro_kernel::RowBlocks;
    use crate::backend::cpu::dot::quantized::QuantizedQueries;
    use crate::tables::Table;

    pub enum SmallBatchF32 {}

    impl SmallBatchF32 {
        pub fn new(_: &RowBlocks, _: &Table) -> Option<SmallBatchF32> {
            None
        }

        pub fn multiply<K>(&self, _: &Table, _: Range<usize>, _: Range<usize>, _: &mut K) {
            match *self {}
        }
    }

    pub fn small_batch_i8(_: &QuantizedQueries, _: &Table, _: Range<usize>, _: Range<usize>, _: &mut [f32]) -> bool {
        false
    }

    pub struct TileMagnitudes;

    impl TileMagnitudes {
        pub fn new(_: usize) -> TileMagnitudes {
            TileMagnitudes
        }
    }

    pub struct Prefilter<'a>(std::convert::Infallible, PhantomData<&'a Table>);

    impl<'a> Prefilter<'a> {
        pub fn new(_: &[f32], _: &'a Table, _: Range<usize>, _: &'a TileMagnitudes) -> Option<Prefilter<'a>> {
            None
        }

        pub fn passing(&self, _: Range<usize>, _: f32) -> u32 {
            match self.0 {}
        }
    }
}
