//! Instruction sets: which of them this machine has, and what is written for each of them.

pub mod aligned;
pub mod math;
pub mod prefetch;
pub mod transpose;
pub mod widen;

use pulp::{Arch, Simd, WithSimd};

/// Runs `kernel` with the widest instruction set of this machine.
pub fn run(kernel: impl WithSimd<Output = ()>) {
    Arch::new().dispatch(kernel);
}

/// Stands for kernels that are written for no instruction set, as the compiler makes them.
pub struct Portable;

/// Floats in one SIMD register of this machine.
pub fn f32_lanes() -> usize {
    struct ItemTile;
    impl WithSimd for ItemTile {
        type Output = usize;
        fn with_simd<S: Simd>(self, _: S) -> usize {
            S::F32_LANES
        }
    }
    Arch::new().dispatch(ItemTile)
}

/// The instructions of AVX2 and FMA, if this machine has them; machines with AVX-512 have.
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
pub fn avx2() -> Option<pulp::x86::V3> {
    match Arch::new() {
        Arch::V3(simd) => Some(simd),
        Arch::V4(simd) => Some(*simd),
        _ => None,
    }
}
