//! The kernels of a GPU beside what the device can do at most, which is measured in the same run:
//!
//! ```text
//! cargo bench --bench gpu_peak -- [--device gpu] [--quick] [--runs 15] [--csv FILE] [FILTER]
//! ```
//!
//! Times are those of single kernels, by timestamps of the device: no upload, no waiting, no reading. Every run measures the
//! peaks (fused multiply-adds of f32, of f16 where the device has it, products of packed 8-bit integers, reading of memory) and
//! then each work of a group once; the table shows medians over all runs. FILTER selects groups by a part of their
//! names. `--quick` is a trial with few items, whose numbers mean nothing.

mod gpu_work;
mod table;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use gpu_work::peak::{ReadPeak, Unit, UnitPeak};
use gpu_work::{Cost, GROUPS, Work};
use rails_wgpu::Result;
use rails_wgpu::backend::gpu::{Gpu, enumerate};
use rails_wgpu::backend::select;
use rails_wgpu::search::{KernelTime, profiled};
use table::Table;

const COLUMNS: &str = "device,driver,group,kernel,shape,dtype,dispatches,runs,median ms,least ms,GFLOP/s,GB/s,unit,\
                       peak GFLOP/s,peak GB/s,share of peak GFLOP/s,share of peak GB/s";

struct Options {
    device: String,
    quick: bool,
    runs: usize,
    csv: Option<String>,
    filter: String,
}

impl Options {
    fn parse() -> std::result::Result<Options, String> {
        let mut options = Options { device: "gpu".into(), quick: false, runs: 0, csv: None, filter: String::new() };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                // Cargo's own.
                "--bench" => {}
                "--quick" => options.quick = true,
                "--device" => options.device = value()?,
                "--csv" => options.csv = Some(value()?),
                "--runs" => {
                    let text = value()?;
                    let number = text.parse().ok().filter(|&n: &usize| n > 0);
                    options.runs = number.ok_or(format!("{text}: expected a number of 1 or more"))?;
                }
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

fn main() -> std::result::Result<(), String> {
    let options = Options::parse()?;
    let (table, csv) = measure(&options).map_err(|error| error.to_string())?;
    print!("\n{table}");
    if let Some(path) = &options.csv {
        std::fs::write(path, csv).map_err(|error| format!("{path}: {error}"))?;
    }
    Ok(())
}

fn measure(options: &Options) -> Result<(Table, String)> {
    let gpu = open(&options.device)?;
    println!("{} ({})", gpu.info().name, gpu.info().driver);
    let peaks = Peaks::new(&gpu, options.quick)?;
    let header = ["kernel", "shape", "dtype", "n", "ms", "GFLOP/s", "of peak", "GB/s", "of peak"];
    let (mut table, mut csv) = (Table::new(header), format!("{COLUMNS}\n"));
    for group in GROUPS.iter().filter(|group| group.name.contains(&options.filter)) {
        let works = group.works(&gpu, options.quick)?;
        let measured = Measured::of(&peaks, &works, options.runs)?;
        for (work, kernels) in works.iter().zip(&measured.kernels) {
            for (kernel, times) in kernels {
                let cost = work.costs.iter().find(|(name, _)| name == kernel).map(|(_, cost)| cost);
                if cost.is_some() || !work.only {
                    measured.add(&mut table, &mut csv, (gpu.info(), group.name), work, (kernel, times), cost);
                }
            }
        }
        print!("{}: ", group.name);
        measured.units.iter().for_each(|(unit, gflops)| print!("{} {gflops:.0} GFLOP/s, ", unit.name()));
        println!("memory {:.1} GB/s", measured.gigabytes);
    }
    Ok((table, csv))
}

fn open(wanted: &str) -> Result<Arc<Gpu>> {
    let adapters = enumerate();
    let infos: Vec<_> = adapters.iter().map(|adapter| &adapter.info).collect();
    Gpu::open(&adapters[select::choose(&infos, wanted)?])
}

/// What the device can do at most.
struct Peaks {
    units: Vec<UnitPeak>,
    memory: ReadPeak,
}

impl Peaks {
    fn new(gpu: &Arc<Gpu>, quick: bool) -> Result<Peaks> {
        let has_f16 = gpu.info().features.iter().any(|feature| feature == "shader-f16");
        let units = [Some(Unit::F32), has_f16.then_some(Unit::F16), Some(Unit::I8)];
        let least = Duration::from_millis(if quick { 1 } else { 5 });
        let units = units.into_iter().flatten().map(|unit| UnitPeak::new(gpu, unit, least)).collect::<Result<_>>()?;
        // Much larger than any cache.
        Ok(Peaks { units, memory: ReadPeak::new(gpu, if quick { 64 << 20 } else { 1 << 30 })? })
    }
}

/// Seconds of each run of all dispatches of a kernel, ascending, and how many dispatches that were.
type Times = (u32, Vec<f64>);

/// The works of a group and the peaks, measured in turn.
struct Measured {
    units: Vec<(Unit, f64)>,
    gigabytes: f64,
    /// Of each work.
    kernels: Vec<BTreeMap<&'static str, Times>>,
}

impl Measured {
    fn of(peaks: &Peaks, works: &[Work], runs: usize) -> Result<Measured> {
        let (mut gflops, mut gigabytes) = (vec![Vec::new(); peaks.units.len()], Vec::new());
        let mut kernels = vec![BTreeMap::<&str, Times>::new(); works.len()];
        // The first run compiles kernels, and does not count.
        for run in 0..=runs {
            for (unit, gflops) in peaks.units.iter().zip(&mut gflops) {
                gflops.push(unit.measure()?);
            }
            gigabytes.push(peaks.memory.measure()?);
            for (work, kernels) in works.iter().zip(&mut kernels) {
                let (done, times) = profiled(&work.run);
                done?;
                for KernelTime { kernel, dispatches, time, .. } in times.into_iter().filter(|_| run > 0) {
                    let known = kernels.entry(kernel).or_default();
                    known.0 = dispatches;
                    known.1.push(time.as_secs_f64());
                }
            }
        }
        kernels.iter_mut().flat_map(BTreeMap::values_mut).for_each(|(_, times)| times.sort_by(f64::total_cmp));
        let units = peaks.units.iter().zip(gflops).map(|(peak, mut gflops)| (peak.unit, median(&mut gflops)));
        Ok(Measured { units: units.collect(), gigabytes: median(&mut gigabytes), kernels })
    }

    fn add(
        &self,
        table: &mut Table,
        csv: &mut String,
        (device, group): (&rails_wgpu::backend::DeviceInfo, &str),
        work: &Work,
        (kernel, (dispatches, times)): (&str, &Times),
        cost: Option<&Cost>,
    ) {
        let Work { shape, dtype, .. } = work;
        let (seconds, least) = (times[times.len() / 2].max(1e-9), times[0]);
        let rates = cost.map(|cost| {
            let (gflops, gigabytes) = (cost.flops / seconds / 1e9, cost.bytes / seconds / 1e9);
            let peak = self.units.iter().find(|(unit, _)| *unit == cost.unit).map_or(f64::NAN, |(_, peak)| *peak);
            (gflops, gigabytes, cost.unit, peak)
        });
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_string());
        table.row([
            kernel.to_string(),
            shape.clone(),
            dtype.to_string(),
            dispatches.to_string(),
            format!("{:.4}", seconds * 1e3),
            or_dash(rates.map(|(gflops, ..)| format!("{gflops:.1}"))),
            or_dash(rates.map(|(gflops, _, _, peak)| format!("{:.0} %", 100.0 * gflops / peak))),
            or_dash(rates.map(|(_, gigabytes, ..)| format!("{gigabytes:.1}"))),
            or_dash(rates.map(|(_, gigabytes, ..)| format!("{:.0} %", 100.0 * gigabytes / self.gigabytes))),
        ]);
        let rates = rates.map(|(gflops, gigabytes, unit, peak)| {
            format!(
                "{gflops:.2},{gigabytes:.3},{},{peak:.2},{:.3},{:.4},{:.4}",
                unit.name(),
                self.gigabytes,
                gflops / peak,
                gigabytes / self.gigabytes
            )
        });
        let rates = rates.unwrap_or_else(|| format!(",,,,{:.3},,", self.gigabytes));
        let (name, driver, runs) = (&device.name, &device.driver, times.len());
        let _ = writeln!(
            csv,
            "\"{name}\",\"{driver}\",{group},{kernel},\"{shape}\",{dtype},{dispatches},{runs},{:.5},{:.5},{rates}",
            seconds * 1e3,
            least * 1e3,
        );
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
