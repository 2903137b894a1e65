//! The adapter that tests run on.

use std::io::Write;
use std::sync::{Arc, OnceLock};

use rails_wgpu::backend::gpu::{Adapter, Gpu, enumerate};

/// The adapter whose name contains `RAILS_TEST_ADAPTER`, or else the first Vulkan adapter, or else any adapter,
/// software included. `None` if there is none, which fails the test where `RAILS_REQUIRE_GPU=1`.
pub fn adapter() -> Option<Adapter> {
    let all = enumerate();
    let wanted = std::env::var("RAILS_TEST_ADAPTER").ok();
    let found = match &wanted {
        Some(name) => all.iter().find(|adapter| adapter.info.name.contains(name.as_str())),
        None => all.iter().find(|adapter| adapter.info.backend == "vulkan").or(all.first()),
    };
    match found {
        Some(Adapter { info, .. }) => say(&format!("adapter: {} ({}, {})", info.name, info.backend, info.driver)),
        None => {
            let required = std::env::var("RAILS_REQUIRE_GPU").is_ok_and(|value| value == "1");
            assert!(!required && wanted.is_none(), "no GPU adapter {wanted:?}, and one is required");
            say("SKIPPED: no GPU adapter");
        }
    }
    found.cloned()
}

/// An open device on [`adapter`], shared by the tests of a file: kernels compile once. There are two, for every other file, since a
/// software driver compiles the kernels of a device one after the other.
#[track_caller]
pub fn shared() -> Option<Arc<Gpu>> {
    static GPUS: [OnceLock<Option<Arc<Gpu>>>; 2] = [const { OnceLock::new() }; 2];
    let file = std::panic::Location::caller().file();
    GPUS[file.len() % 2].get_or_init(|| adapter().map(|adapter| Gpu::open(&adapter).unwrap())).clone()
}

/// Prints to the terminal even where the test harness captures the output of tests.
pub fn say(line: &str) {
    let mut terminal = std::io::stderr();
    writeln!(terminal, "{line}").unwrap();
}

/// A device of the kind of `adapter` as a host application may have opened it: with some limits of its own.
pub fn opened_with(adapter: &Adapter, change: impl Fn(&mut wgpu::Limits)) -> Arc<Gpu> {
    let backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let all = pollster::block_on(instance.enumerate_adapters(backends));
    let found = all.into_iter().find(|handle| handle.get_info().name == adapter.info.name).unwrap();
    let mut required_limits = found.limits();
    change(&mut required_limits);
    let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
    let (device, queue) = pollster::block_on(found.request_device(&descriptor)).unwrap();
    Gpu::from_device(device, queue).unwrap()
}
