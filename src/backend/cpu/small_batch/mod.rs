//! Kernels for batches of up to four queries, and the prefilter of a single one. They need AVX2; elsewhere there are none, and
//! batches of all sizes are multiplied alike.

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod element;
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod prefilter;
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod prefilter_float;
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod prefilter_i8;
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod small_batch_f32;
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod small_batch_i8;

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
pub use {prefilter::Sieve, small_batch_f32::FewRows, small_batch_i8::few_integers};

#[cfg(not(any(target_arch = "x86", target_arch = "x86_64")))]
pub use stub::{FewRows, Sieve, few_integers};

/// The same names for other machines: nothing can be made of these types.
#[cfg(not(any(target_arch = "x86", target_arch = "x86_64")))]
mod stub {
    use std::ops::Range;

    use crate::backend::cpu::dot::micro_kernel::RowBlocks;
    use crate::backend::cpu::dot::quantized::FixedRows;
    use crate::tables::Table;

    pub enum FewRows {}

    impl FewRows {
        pub fn new(_: &RowBlocks, _: &Table) -> Option<FewRows> {
            None
        }

        pub fn multiply<K>(&self, _: &Table, _: Range<usize>, _: Range<usize>, _: &mut K) {
            match *self {}
        }
    }

    pub fn few_integers(_: &FixedRows, _: &Table, _: Range<usize>, _: Range<usize>, _: &mut [f32]) -> bool {
        false
    }

    pub enum Sieve {}

    impl Sieve {
        pub fn new(_: &[f32], _: &Table, _: Range<usize>) -> Option<Sieve> {
            None
        }

        pub fn passing(&self, _: &Table, _: Range<usize>, _: f32) -> u32 {
            match *self {}
        }
    }
}
