//! `rails-bench devices --tune`: which kernel of each kind scans fastest on a GPU.

use std::time::Duration;

use rails_wgpu::backend::gpu::{Gpu, GpuBackend, ScanTier, ScanTiming, enumerate};
use rails_wgpu::backend::select::choose;
use rails_wgpu::backend::{DeviceInfo, DeviceKind};
use rails_wgpu::config::preset;
use rails_wgpu::train::fresh_model;
use rails_wgpu::{Algorithm, Dtype, ItemIndex, QueryBatch, Result, Searcher, Tensor};
use serde_json::{Value, json};

use crate::output::outln;
use crate::progress::stage;
use crate::report::Table;

/// The published shapes: 8x4x64, 8x4x128 and 8x8x32 with a gate of 128 hidden units.
const PRESETS: [&str; 3] = ["ml-1m/hstu-mol", "ml-20m/hstu-mol", "amzn-books/hstu-mol"];

/// Items of a table that is scanned: as many as a timed dispatch takes, few for a software driver.
const ITEMS: [usize; 2] = [8192, 256];

/// Queries of a search.
const QUERIES: usize = 32;

/// What was timed on a GPU.
pub struct Tuned {
    device: String,
    /// Of each preset and number format.
    timings: Vec<(&'static str, ScanTiming)>,
}

/// Times all kernels that scan tables of the published shapes on the GPU called `wanted`, which keeps the choices.
///
/// # Errors
/// If there is no such GPU, or it fails.
pub fn tune(wanted: &str) -> Result<Tuned> {
    let adapters = enumerate();
    let infos: Vec<&DeviceInfo> = adapters.iter().map(|adapter| &adapter.info).collect();
    let gpu = Gpu::open(&adapters[choose(&infos, wanted)?])?;
    gpu.set_scan_tier(ScanTier::Timed);
    gpu.forget_scan_timings();
    let n_items = ITEMS[usize::from(gpu.info().kind == DeviceKind::SoftwareGpu)];
    let backend = GpuBackend::new(gpu.clone());
    let mut timings = Vec::new();
    for name in PRESETS {
        let config = preset(name)?.0;
        let model = fresh_model(&config, n_items + 1, 0)?;
        let ids: Vec<u32> = (1..=n_items as u32).collect();
        // Times do not depend on what is asked.
        let dim = config.item_embedding_dim;
        let queries = Tensor::new([QUERIES, dim], (0..QUERIES * dim).map(|i| (i as f32).sin()).collect())?;
        let queries = QueryBatch::new(queries).with_users(vec![0; QUERIES]);
        for dtype in [Dtype::F32, Dtype::F16, Dtype::I8] {
            stage(&format!("timing {name} {dtype}"), || {
                let searcher = Searcher::new(ItemIndex::from_model(&backend, &model, &ids, dtype)?);
                searcher.search(Algorithm::Exact, &queries, 1, &[])
            })?;
            let known = timings.len();
            timings.extend(gpu.scan_timings().into_iter().skip(known).map(|timing| (name, timing)));
        }
    }
    Ok(Tuned { device: gpu.info().name.clone(), timings })
}

impl Tuned {
    /// Prints a table of all kernels, the chosen ones standing out.
    ///
    /// # Errors
    /// If standard output is closed.
    pub fn print(&self) -> Result<()> {
        outln!("\nscan kernels on {}: milliseconds of a dispatch (*: chosen)", self.device)?;
        let mut table = Table::new(["kernel", "ms"]);
        for (preset, ScanTiming { variant, chosen, times, .. }) in &self.timings {
            table.group(format!("{preset}: {variant}"));
            for (kernel, time) in times {
                let ms = format!("{:.4}", milliseconds(*time));
                if kernel == chosen {
                    table.best_row([format!("{kernel} *"), ms]);
                } else {
                    table.row([kernel.clone(), ms]);
                }
            }
        }
        table.print()
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let timing = |(preset, timing): &(&str, ScanTiming)| {
            let times = timing.times.iter().map(|(kernel, time)| (kernel.clone(), json!(milliseconds(*time))));
            let times: serde_json::Map<_, _> = times.collect();
            json!({ "preset": preset, "variant": timing.variant, "chosen": timing.chosen, "ms": times })
        };
        json!({ "device": self.device, "timings": self.timings.iter().map(timing).collect::<Vec<_>>() })
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
