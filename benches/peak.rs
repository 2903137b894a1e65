//! The CPU backend's kernels beside what the machine can do at most, which is measured in the same run:
//!
//! ```text
//! cargo bench --bench peak -- [--quick] [--threads 1,2] [--runs 20] [--csv FILE] [FILTER]
//! ```
//!
//! Every run times the machine's peaks and then each work of a group once; the table shows medians over all runs. FILTER
//! selects groups by a part of their names; `first stage 100M`, which takes 12 GB, is measured only where that is the
//! FILTER. `--quick` is a trial with few items, whose numbers mean nothing.
#![allow(clippy::expect_used, reason = "a benchmark of inputs that are known to be right")]

mod table;
mod work;

use std::fmt::Write;
use std::time::Instant;

use rails_wgpu::tables::Pages;
use rayon::{ThreadPool, ThreadPoolBuilder};
use table::Table;
use work::{Work, groups, machine};

const COLUMNS: &str = "machine,instruction set,group,kernel,shape,dtype,threads,runs,median ms,least ms,GFLOP/s,GB/s,\
                       peak GFLOP/s,peak GB/s,share of peak GFLOP/s,share of peak GB/s";

struct Options {
    quick: bool,
    threads: Vec<usize>,
    runs: usize,
    csv: Option<String>,
    filter: String,
}

impl Options {
    fn parse() -> Result<Options, String> {
        let all = std::thread::available_parallelism().map_or(1, usize::from);
        let mut threads = vec![1, all];
        threads.dedup();
        let mut options = Options { quick: false, threads, runs: 0, csv: None, filter: String::new() };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            let number = |text: &str| {
                text.parse().ok().filter(|&n: &usize| n > 0).ok_or(format!("{text}: expected a number of 1 or more"))
            };
            match arg.as_str() {
                // Cargo's own.
                "--bench" => {}
                "--quick" => options.quick = true,
                "--runs" => options.runs = number(&value()?)?,
                "--threads" => options.threads = value()?.split(',').map(number).collect::<Result<_, _>>()?,
                "--csv" => options.csv = Some(value()?),
                _ if arg.starts_with('-') => return Err(format!("{arg}: no such option")),
                _ => options.filter = arg,
            }
        }
        if options.runs == 0 {
            options.runs = if options.quick { 2 } else { 15 };
        }
        Ok(options)
    }
}

fn main() -> Result<(), String> {
    let options = Options::parse()?;
    let mut table = Table::new(["kernel", "shape", "dtype", "threads", "ms", "GFLOP/s", "of peak", "GB/s", "of peak"]);
    let mut csv = format!("{COLUMNS}\n");
    println!("{}; {}", machine::name(), machine::instruction_set());
    // Where tables lie too.
    let mut values = Pages::default();
    values.extend((0..if options.quick { 4 << 20 } else { 128 << 20 }).map(|_: usize| 1.0f32));
    let values = values.as_slice();
    for group in groups(&options.filter) {
        let works = group.works(options.quick);
        for &threads in &options.threads {
            let pool = ThreadPoolBuilder::new().num_threads(threads).build().map_err(|error| error.to_string())?;
            let measured = Measured::of(&pool, &works, values, options.runs);
            for (work, times) in works.iter().zip(&measured.times) {
                measured.add(&mut table, &mut csv, group.name, work, threads, times);
            }
            println!(
                "{}: {threads} threads, {:.0} GFLOP/s, {:.1} GB/s",
                group.name, measured.gflops, measured.gigabytes
            );
        }
    }
    print!("\n{table}");
    if let Some(path) = &options.csv {
        std::fs::write(path, csv).map_err(|error| format!("{path}: {error}"))?;
    }
    Ok(())
}

/// The works of a group and the peaks, measured in turn.
struct Measured {
    gflops: f64,
    gigabytes: f64,
    /// Seconds of each work, ascending.
    times: Vec<Vec<f64>>,
}

impl Measured {
    fn of(pool: &ThreadPool, works: &[Work], values: &[f32], runs: usize) -> Measured {
        let (mut gflops, mut gigabytes) = (Vec::new(), Vec::new());
        let mut times = vec![Vec::new(); works.len()];
        works.iter().for_each(|work| pool.install(|| (work.run)()));
        for _ in 0..runs {
            gflops.push(pool.install(machine::gflops));
            gigabytes.push(pool.install(|| machine::gigabytes(values)));
            for (work, times) in works.iter().zip(&mut times) {
                let started = Instant::now();
                pool.install(|| (work.run)());
                times.push(started.elapsed().as_secs_f64());
            }
        }
        times.iter_mut().for_each(|times| times.sort_by(f64::total_cmp));
        Measured { gflops: median(&mut gflops), gigabytes: median(&mut gigabytes), times }
    }

    fn add(&self, table: &mut Table, csv: &mut String, group: &str, work: &Work, threads: usize, times: &[f64]) {
        let seconds = times[times.len() / 2];
        let (gflops, gigabytes) = (work.flops / seconds / 1e9, work.bytes / seconds / 1e9);
        let Work { kernel, shape, dtype, .. } = work;
        table.row([
            kernel.to_string(),
            shape.clone(),
            dtype.to_string(),
            threads.to_string(),
            format!("{:.2}", seconds * 1e3),
            format!("{gflops:.1}"),
            format!("{:.0} %", 100.0 * gflops / self.gflops),
            format!("{gigabytes:.1}"),
            format!("{:.0} %", 100.0 * gigabytes / self.gigabytes),
        ]);
        let (machine, set) = (machine::name(), machine::instruction_set());
        let _ = writeln!(
            csv,
            "\"{machine}\",\"{set}\",{group},{kernel},\"{shape}\",{dtype},{threads},{},{:.4},{:.4},{gflops:.2},\
             {gigabytes:.3},{:.2},{:.3},{:.4},{:.4}",
            times.len(),
            seconds * 1e3,
            times[0] * 1e3,
            self.gflops,
            self.gigabytes,
            gflops / self.gflops,
            gigabytes / self.gigabytes,
        );
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
