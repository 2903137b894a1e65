//! Adapters: the devices that can be opened.

use super::info::describe;
use crate::backend::DeviceInfo;

/// An adapter that can be opened.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// What it is.
    pub info: DeviceInfo,
    pub(crate) handle: wgpu::Adapter,
}

/// All adapters of the Vulkan, Metal and DX12 drivers of this machine, software drivers included.
pub fn enumerate() -> Vec<Adapter> {
    let backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends,
        flags: wgpu::InstanceFlags::empty().with_env(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let adapters = pollster::block_on(instance.enumerate_adapters(backends));
    let describe = |handle: wgpu::Adapter| Adapter {
        info: describe(&handle.get_info(), handle.features(), &handle.limits()),
        handle,
    };
    adapters.into_iter().map(describe).collect()
}
