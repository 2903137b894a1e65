//! The CPU backend, and a GPU if there is one.

use std::sync::Arc;

use rails_wgpu::backend::Backend;
use rails_wgpu::backend::cpu::Cpu;

#[cfg(feature = "gpu")]
use super::gpu;

#[track_caller]
pub fn backends() -> Vec<Arc<dyn Backend>> {
    #[cfg_attr(not(feature = "gpu"), allow(unused_mut, reason = "only GPUs are added"))]
    let mut all: Vec<Arc<dyn Backend>> = vec![Arc::new(Cpu::default())];
    #[cfg(feature = "gpu")]
    if let Some(gpu) = gpu::shared() {
        all.push(Arc::new(rails_wgpu::backend::gpu::GpuBackend::new(gpu)));
    }
    all
}
