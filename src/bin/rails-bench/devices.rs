//! `rails-bench devices`.

use clap::Args;
use rails_wgpu::Result;
use rails_wgpu::backend::DeviceInfo;
use rails_wgpu::backend::select::{Device, choose, reason};
use serde_json::json;

use crate::json_output::JsonOutput;
use crate::output::outln;
use crate::paths::Output;
use crate::report::{Machine, Table};

#[derive(Args)]
pub struct DevicesArgs {
    /// Also write the list as JSON to this file; `-`: to standard output, instead of the table
    #[arg(long, value_name = "FILE")]
    json: Option<Output>,
    /// Also time the kernels that scan by Mixture-of-Logits, for tables of the published models, on this GPU (by default the best
    /// one), which goes by the choices from then on
    #[cfg(feature = "gpu")]
    #[arg(long, value_name = "DEVICE", num_args = 0..=1, default_missing_value = "gpu")]
    tune: Option<String>,
}

pub fn run(args: &DevicesArgs) -> Result<()> {
    let json = args.json.as_deref().map(JsonOutput::open).transpose()?;
    let devices = Device::all();
    let infos: Vec<&DeviceInfo> = devices.iter().map(Device::info).collect();
    let (auto, gpu) = (choose(&infos, "auto")?, choose(&infos, "gpu").ok());
    if !matches!(json, Some(JsonOutput::Stdout)) {
        print(&infos, auto, gpu)?;
    }
    #[cfg(feature = "gpu")]
    let tuned = args.tune.as_deref().map(crate::tune::tune).transpose()?;
    #[cfg(feature = "gpu")]
    if let (Some(tuned), false) = (&tuned, matches!(json, Some(JsonOutput::Stdout))) {
        tuned.print()?;
    }
    let Some(json) = json else { return Ok(()) };
    let device = |info: &&DeviceInfo| {
        let limits: serde_json::Map<_, _> =
            info.limits.iter().map(|(name, value)| (name.to_string(), json!(value))).collect();
        json!({
            "name": info.name, "type": info.kind.to_string(), "backend": info.backend, "driver": info.driver,
            "features": info.features, "limits": limits,
        })
    };
    let Machine { processor, threads, version } = Machine::here();
    #[allow(unused_mut, reason = "only timings of GPUs are added")]
    let mut report = json!({
        "devices": infos.iter().map(device).collect::<Vec<_>>(),
        "auto": infos[auto].name, "auto_reason": reason(infos[auto]), "gpu": gpu.map(|gpu| &infos[gpu].name),
        "processor": processor, "threads": threads, "version": version,
    });
    #[cfg(feature = "gpu")]
    if let Some(tuned) = &tuned {
        report["tuned"] = tuned.json();
    }
    json.write(&format!("{report:#}\n"))
}

fn print(infos: &[&DeviceInfo], auto: usize, gpu: Option<usize>) -> Result<()> {
    let mut table = Table::new(["device", "type", "backend", "driver"]);
    for info in infos {
        table.row([info.name.as_str(), &info.kind.to_string(), &info.backend, &info.driver]);
    }
    table.print()?;
    outln!("\nprocessor: {}", Machine::here())?;
    for info in infos {
        outln!("\n{}", info.name)?;
        outln!("  features: {}", if info.features.is_empty() { "none".to_string() } else { info.features.join(", ") })?;
        for (name, value) in &info.limits {
            outln!("  {name}: {value}")?;
        }
    }
    outln!("\nauto: {} ({})", infos[auto].name, reason(infos[auto]))?;
    gpu.map_or(Ok(()), |gpu| outln!("gpu: {}", infos[gpu].name))
}
