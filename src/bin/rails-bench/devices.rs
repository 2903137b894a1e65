//! `rails-bench devices`.

use crate::report::Table;
use rails_wgpu::Result;
use rails_wgpu::backend::DeviceInfo;
use rails_wgpu::backend::select::{Device, choose, reason};

use crate::output::{out, outln};

pub fn run() -> Result<()> {
    let devices = Device::all();
    let infos: Vec<&DeviceInfo> = devices.iter().map(Device::info).collect();
    let auto = choose(&infos, "auto")?;
    let mut table = Table::new(["device", "type", "backend", "driver"]);
    for info in &infos {
        table.row([info.name.as_str(), &info.kind.to_string(), &info.backend, &info.driver]);
    }
    out!("{table}")?;
    for info in &infos {
        outln!("\n{}", info.name)?;
        outln!("  features: {}", if info.features.is_empty() { "none".to_string() } else { info.features.join(", ") })?;
        for (name, value) in &info.limits {
            outln!("  {name}: {value}")?;
        }
    }
    outln!("\nauto: {} ({})", infos[auto].name, reason(infos[auto]))?;
    if let Ok(gpu) = choose(&infos, "gpu") {
        outln!("gpu: {}", infos[gpu].name)?;
    }
    Ok(())
}
