//! Instruction sets: which of them this machine has, and the code that is written for each.

pub mod aligned;
pub mod math;
pub mod prefetch;
pub mod reduce;
pub mod transpose;
pub mod widen;

use pulp::{Arch, Simd, WithSimd};

/// Runs `kernel` with the widest instruction set of this machine.
pub fn run<K: WithSimd>(kernel: K) -> K::Output {
    Arch::new().dispatch(kernel)
}

/// Selects the kernels without intrinsics, for any instruction set.
pub struct Portable;

/// Runs a task with the widest instruction set of this machine. In the task, `$kernel` is that of AVX2 where the machine has it, and
/// [`Portable`] elsewhere.
macro_rules! run_with_kernel {
    ($kernel:ident => $task:expr) => {
        match pulp::Arch::new() {
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            pulp::Arch::V3(simd) => {
                let $kernel = simd;
                pulp::Simd::vectorize(simd, $task)
            }
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            pulp::Arch::V4(simd) => {
                let $kernel = *simd;
                pulp::Simd::vectorize(simd, $task)
            }
            arch => {
                let $kernel = $crate::backend::cpu::simd::Portable;
                arch.dispatch($task)
            }
        }
    };
}
pub(super) use run_with_kernel;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_have_lanes() {
        let lanes = f32_lanes();
        assert!([1, 4, 8, 16].contains(&lanes), "{lanes} lanes");
        if cfg!(target_arch = "aarch64") {
            assert_eq!(lanes, 4, "NEON belongs to every AArch64 processor");
        }
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        assert_eq!(avx2().is_some(), lanes >= 8);
    }
}
