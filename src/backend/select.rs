//! Which device to use.

use std::sync::Arc;

use super::cpu::Cpu;
use super::{Backend, DeviceInfo, DeviceKind, TrainingDevice};
use crate::config::ModelConfig;
use crate::{Error, Result};

/// A device that can be opened.
pub struct Device {
    info: DeviceInfo,
    #[cfg(feature = "gpu")]
    adapter: Option<super::gpu::Adapter>,
}

impl Device {
    /// All devices of this machine, the CPU backend first.
    pub fn all() -> Vec<Device> {
        let cpu = Device {
            info: Cpu::default().info().clone(),
            #[cfg(feature = "gpu")]
            adapter: None,
        };
        #[cfg_attr(not(feature = "gpu"), allow(unused_mut, reason = "only GPUs are added"))]
        let mut devices = vec![cpu];
        #[cfg(feature = "gpu")]
        devices.extend(
            super::gpu::enumerate()
                .into_iter()
                .map(|adapter| Device { info: adapter.info.clone(), adapter: Some(adapter) }),
        );
        devices
    }

    /// What it is.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// Opens it.
    ///
    /// # Errors
    /// If the driver refuses.
    pub fn open(&self) -> Result<Arc<dyn Backend>> {
        #[cfg(feature = "gpu")]
        if let Some(adapter) = &self.adapter {
            return Ok(Arc::new(super::gpu::GpuBackend::open(adapter)?));
        }
        Ok(Arc::new(Cpu::default()))
    }

    /// Opens it to train on.
    ///
    /// # Errors
    /// If the driver refuses.
    pub fn open_for_training(&self) -> Result<TrainingDevice> {
        #[cfg(feature = "gpu")]
        if let Some(adapter) = &self.adapter {
            return Ok(TrainingDevice::gpu(&super::gpu::Gpu::open(adapter)?));
        }
        Ok(TrainingDevice::cpu())
    }
}

/// Opens the device called `wanted`: see [`choose`].
///
/// # Errors
/// If there is none, or the driver refuses.
pub fn open(wanted: &str) -> Result<Arc<dyn Backend>> {
    // Asking all drivers takes longer than many a search.
    if wanted == "cpu" {
        return Ok(Arc::new(Cpu::default()));
    }
    find(wanted)?.open()
}

/// Opens the device called `wanted` to train `model` on: see [`choose`]. For `auto`, the CPU backend trains what a GPU does not.
///
/// # Errors
/// If there is none, or the driver refuses.
pub fn open_for_training(wanted: &str, model: &ModelConfig) -> Result<TrainingDevice> {
    if wanted == "cpu" {
        return Ok(TrainingDevice::cpu());
    }
    let device = find(wanted)?.open_for_training()?;
    Ok(if wanted == "auto" { device.or_cpu(model) } else { device })
}

fn find(wanted: &str) -> Result<Device> {
    let mut devices = Device::all();
    let infos: Vec<&DeviceInfo> = devices.iter().map(Device::info).collect();
    let chosen = choose(&infos, wanted)?;
    Ok(devices.swap_remove(chosen))
}

/// The device that `wanted` means: `auto` (a discrete GPU, else an integrated one, else the CPU backend), `cpu`, `gpu`
/// (the best GPU, which must exist), or a part of a device's name, API (`vulkan`, `metal`, `dx12`) and driver, in this order and
/// whatever the case: `3060`, `3060 dx12`, `dx12`. Software rasterisers are taken only by name: the CPU backend does the same
/// work many times faster. A GPU that has drivers for Vulkan and for DX12 is used through Vulkan, unless `dx12` is named: it takes
/// shaders as they are, where those for DX12 go through a compiler of HLSL.
///
/// # Errors
/// If there is no such device.
pub fn choose(devices: &[&DeviceInfo], wanted: &str) -> Result<usize> {
    let best_gpu = || {
        let preferred = [DeviceKind::DiscreteGpu, DeviceKind::IntegratedGpu, DeviceKind::VirtualGpu];
        let of_kind = |kind: DeviceKind| {
            let all = devices.iter().enumerate().filter(|(_, device)| device.kind == kind);
            all.min_by_key(|(_, device)| device.backend == "dx12").map(|(index, _)| index)
        };
        preferred.into_iter().find_map(of_kind)
    };
    let cpu = || devices.iter().position(|device| device.kind == DeviceKind::Cpu);
    let named = || {
        let wanted = wanted.to_lowercase();
        let words =
            |device: &DeviceInfo| format!("{} {} {}", device.name, device.backend, device.driver).to_lowercase();
        let all = devices.iter().enumerate().filter(|(_, device)| words(device).contains(&wanted));
        let chosen = all.min_by_key(|(_, device)| device.backend == "dx12").map(|(index, _)| index);
        chosen.filter(|_| !wanted.is_empty())
    };
    let chosen = match wanted {
        "auto" => best_gpu().or_else(cpu),
        "gpu" => best_gpu(),
        "cpu" => cpu(),
        _ => named(),
    };
    chosen.ok_or_else(|| {
        let software = |device: &DeviceInfo| {
            if device.kind == DeviceKind::SoftwareGpu { " (software, only by its name)" } else { "" }
        };
        let names: Vec<String> =
            devices.iter().map(|device| format!("`{}`{}", device.name, software(device))).collect();
        Error::NoDevice { wanted: wanted.to_string(), available: format!("`auto`, {}", names.join(", ")) }
    })
}

/// Why `auto` takes the device it takes.
pub fn reason(chosen: &DeviceInfo) -> &'static str {
    match chosen.kind {
        DeviceKind::DiscreteGpu => "a discrete GPU is preferred",
        DeviceKind::IntegratedGpu => "there is no discrete GPU, an integrated one comes next",
        DeviceKind::VirtualGpu => "there is no discrete or integrated GPU",
        _ => "there is no hardware GPU; software rasterisers are used only when asked for by name",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn device(name: &str, kind: DeviceKind) -> DeviceInfo {
        let driver = if kind == DeviceKind::SoftwareGpu { "Mesa 25" } else { "d" };
        DeviceInfo {
            name: name.to_string(),
            kind,
            backend: "vulkan".to_string(),
            driver: driver.to_string(),
            features: Vec::new(),
            limits: Vec::new(),
        }
    }

    #[test]
    fn auto_prefers_discrete_then_integrated_then_cpu_and_never_software() {
        let cpu = device("cpu", DeviceKind::Cpu);
        let soft = device("llvmpipe (LLVM 15)", DeviceKind::SoftwareGpu);
        let integrated = device("Iris", DeviceKind::IntegratedGpu);
        let discrete = device("Radeon", DeviceKind::DiscreteGpu);
        assert_eq!(choose(&[&cpu, &soft, &integrated, &discrete], "auto").unwrap(), 3);
        assert_eq!(choose(&[&cpu, &soft, &integrated], "auto").unwrap(), 2);
        assert_eq!(choose(&[&cpu, &soft], "auto").unwrap(), 0);
        assert_eq!(choose(&[&cpu, &soft, &integrated], "gpu").unwrap(), 2);
        assert!(choose(&[&cpu, &soft], "gpu").is_err());
    }

    #[test]
    fn a_gpu_is_used_through_vulkan_unless_dx12_is_named() {
        let vulkan = device("Radeon RX", DeviceKind::DiscreteGpu);
        let dx12 = DeviceInfo { backend: "dx12".to_string(), ..vulkan.clone() };
        let integrated = device("Iris", DeviceKind::IntegratedGpu);
        for name in ["auto", "gpu", "radeon", "vulkan", "radeon rx vulkan"] {
            assert_eq!(choose(&[&dx12, &vulkan], name).unwrap(), 1, "{name}");
        }
        for name in ["dx12", "DX12", "rx dx12"] {
            assert_eq!(choose(&[&vulkan, &dx12], name).unwrap(), 1, "{name}");
        }
        assert_eq!(choose(&[&integrated, &dx12], "auto").unwrap(), 1, "a discrete GPU, whatever the API");
    }

    #[test]
    fn names_match_in_part_and_an_unknown_name_lists_what_there_is() {
        let cpu = device("cpu", DeviceKind::Cpu);
        let soft = device("llvmpipe (LLVM 15)", DeviceKind::SoftwareGpu);
        assert_eq!(choose(&[&cpu, &soft], "LLVMpipe").unwrap(), 1);
        assert_eq!(choose(&[&cpu, &soft], "mesa").unwrap(), 1);
        let error = choose(&[&cpu, &soft], "geforce").unwrap_err().to_string();
        assert!(error.contains("`geforce`") && error.contains("`llvmpipe (LLVM 15)`"), "{error}");
        assert!(choose(&[&cpu, &soft], "").is_err());
    }
}
