//! The adapter that tests run on.

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
        Some(adapter) => println!("adapter: {} ({}, {})", adapter.info.name, adapter.info.backend, adapter.info.driver),
        None => {
            let required = std::env::var("RAILS_REQUIRE_GPU").is_ok_and(|value| value == "1");
            assert!(!required && wanted.is_none(), "no GPU adapter {wanted:?}, and one is required");
            eprintln!("SKIPPED: no GPU adapter");
        }
    }
    found.cloned()
}

/// One open device on [`adapter`], shared by all tests of a program: kernels compile once.
pub fn shared() -> Option<Arc<Gpu>> {
    static GPU: OnceLock<Option<Arc<Gpu>>> = OnceLock::new();
    GPU.get_or_init(|| adapter().map(|adapter| Gpu::open(&adapter).unwrap())).clone()
}
