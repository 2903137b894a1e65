//! Times of the CPU backend's kernels, by criterion:
//!
//! ```text
//! cargo bench --bench kernels [-- GROUP[/KERNEL]]
//! RAYON_NUM_THREADS=1 cargo bench --bench kernels
//! ```
//!
//! `benches/peak.rs` puts the same works beside what the machine can do at most.
#![allow(clippy::expect_used, reason = "a benchmark of inputs that are known to be right")]

#[allow(dead_code, reason = "each benchmark uses a part")]
mod work;

use std::time::Duration;

use criterion::{Criterion, Throughput};
use work::{groups, machine};

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    println!("{}, {} threads in use", machine::instruction_set(), rayon::current_num_threads());
    peaks(&mut criterion);
    // Making an index takes longer than most measurements: only where one of its works may be asked for.
    let asked = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    for group in groups(asked.split('/').next().unwrap_or_default()) {
        let mut measured = criterion.benchmark_group(group.name);
        for work in group.works(false) {
            measured.throughput(Throughput::Elements(work.flops as u64));
            measured.bench_function(format!("{} {} {}", work.kernel, work.shape, work.dtype), |bencher| {
                bencher.iter(|| (work.run)());
            });
        }
        measured.finish();
    }
    criterion.final_summary();
}

/// What the machine can do at most.
fn peaks(criterion: &mut Criterion) {
    let buffer = vec![1.0f32; 128 << 20];
    println!("peak: {:.0} GFLOP/s of fused multiply-adds in registers", machine::gflops());
    let mut peaks = criterion.benchmark_group("peak");
    peaks.throughput(Throughput::Bytes(size_of_val(buffer.as_slice()) as u64));
    peaks.bench_function("read 512 MiB", |bencher| bencher.iter(|| machine::gigabytes(&buffer)));
    peaks.finish();
}
