//! Which device searches: the one that draws, if it is a GPU, else the CPU.

use std::sync::Arc;

use eframe::egui_wgpu::{RenderState, WgpuConfiguration, WgpuSetup, WgpuSetupCreateNew};
use rails_wgpu::backend::gpu::{GpuBackend, device_descriptor};
use rails_wgpu::backend::{Backend, DeviceKind, cpu::Cpu};

/// The device of the search, in words for the window too.
pub struct Chosen {
    /// The device.
    pub backend: Arc<dyn Backend>,
    /// What it is called.
    pub name: String,
    /// Why it was taken.
    pub why: String,
}

/// Lets eframe open the device with the features and limits that rails-wgpu makes use of; its own choice would do, with
/// smaller buffers. The adapter stays the one that suits the window best.
pub fn configuration() -> WgpuConfiguration {
    let setup = WgpuSetupCreateNew {
        device_descriptor: Arc::new(device_descriptor),
        ..WgpuSetupCreateNew::without_display_handle()
    };
    WgpuConfiguration { wgpu_setup: WgpuSetup::CreateNew(setup), ..WgpuConfiguration::default() }
}

/// `wanted`: `auto`, `cpu` or `gpu`. A software driver is no help to a search, so `auto` passes it over.
///
/// # Errors
/// If a GPU was wanted and cannot be used.
pub fn choose(wanted: &str, drawn_with: Option<&RenderState>) -> Result<Chosen, String> {
    let cpu = |why: String| {
        let backend: Arc<dyn Backend> = Arc::new(Cpu::default());
        let name = format!("CPU · {}", backend.info().driver);
        Ok(Chosen { backend, name, why })
    };
    let shared = drawn_with.ok_or("the window is not drawn with wgpu".to_string()).and_then(|state| {
        GpuBackend::from_device(state.device.clone(), state.queue.clone()).map_err(|error| error.to_string())
    });
    match (wanted, shared) {
        ("cpu", _) => cpu("drawn by the GPU, searched on the".to_string()),
        ("gpu", Err(error)) => Err(error),
        ("auto", Err(error)) => cpu(error),
        ("auto", Ok(gpu)) if gpu.info().kind == DeviceKind::SoftwareGpu => {
            cpu("only a software GPU draws, so searched on the".to_string())
        }
        ("auto" | "gpu", Ok(gpu)) => {
            let name = gpu.info().name.clone();
            Ok(Chosen { backend: gpu.share(), name, why: "drawn and searched on one device".to_string() })
        }
        (other, _) => Err(format!("--device: expected auto, cpu or gpu, found `{other}`")),
    }
}
