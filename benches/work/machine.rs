//! The machine: what it is, and what it can do at most, measured.

use std::hint::black_box;
use std::time::Instant;

use pulp::{Arch, Simd, WithSimd};
use rails_wgpu::backend::Backend;
use rails_wgpu::backend::cpu::Cpu;

/// The processor and the number of its threads; `RAILS_MACHINE` in its place, if that is set.
pub fn name() -> String {
    if let Ok(name) = std::env::var("RAILS_MACHINE") {
        return name;
    }
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{}, {threads} threads", model.map_or(std::env::consts::ARCH, |(_, model)| model))
}

/// The instruction set and the width of its registers.
pub fn instruction_set() -> String {
    let set = match Arch::new() {
        Arch::Scalar => "scalar",
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        Arch::V3(_) => "AVX2 with FMA",
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        Arch::V4(_) => "AVX-512",
        _ => std::env::consts::ARCH,
    };
    format!("{set}, {}", Cpu::default().info().driver)
}

/// Fused multiply-adds per second of the present thread pool, in GFLOP/s (2 for each): N independent sums in registers,
/// for the best of several N, since processors differ in latency and in their number of registers. Takes about 10 ms.
pub fn gflops() -> f64 {
    const ROUNDS: usize = 1_000_000;
    let variants: [fn(usize) -> f64; 5] = [fma::<8>, fma::<10>, fma::<12>, fma::<16>, fma::<24>];
    variants.into_iter().map(|run| run(ROUNDS)).fold(0.0, f64::max)
}

fn fma<const N: usize>(rounds: usize) -> f64 {
    let started = Instant::now();
    let flops: f64 = rayon::broadcast(|_| Arch::new().dispatch(Fma::<N> { rounds })).into_iter().sum();
    flops / started.elapsed().as_secs_f64() / 1e9
}

struct Fma<const N: usize> {
    rounds: usize,
}

impl<const N: usize> WithSimd for Fma<N> {
    /// Floating-point operations.
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        let (factor, step) = (simd.splat_f32s(black_box(0.999)), simd.splat_f32s(black_box(0.001)));
        let mut sums = [simd.splat_f32s(0.0); N];
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = simd.splat_f32s(black_box(i as f32));
        }
        for _ in 0..self.rounds {
            for sum in &mut sums {
                *sum = simd.mul_add_e_f32s(*sum, factor, step);
            }
        }
        for sum in sums {
            black_box(simd.reduce_sum_f32s(sum));
        }
        2.0 * (N * S::F32_LANES * self.rounds) as f64
    }
}

/// Bytes per second that the present thread pool reads from `buffer`, which should be much larger than the caches, in
/// GB/s.
pub fn gigabytes(buffer: &[f32]) -> f64 {
    let started = Instant::now();
    rayon::broadcast(|context| {
        let length = buffer.len() / context.num_threads();
        black_box(Arch::new().dispatch(Sum { values: &buffer[context.index() * length..][..length] }));
    });
    size_of_val(buffer) as f64 / started.elapsed().as_secs_f64() / 1e9
}

struct Sum<'a> {
    values: &'a [f32],
}

impl WithSimd for Sum<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        const N: usize = 8;
        let mut sums = [simd.splat_f32s(0.0); N];
        let (registers, _) = S::as_simd_f32s(self.values);
        let (blocks, _) = registers.as_chunks::<N>();
        for block in blocks {
            for (sum, &register) in sums.iter_mut().zip(block) {
                *sum = simd.add_f32s(*sum, register);
            }
        }
        let mut total = 0.0;
        for sum in sums {
            total += simd.reduce_sum_f32s(sum);
        }
        total
    }
}
