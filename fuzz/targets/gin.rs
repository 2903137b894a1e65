//! Hyper-parameters.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rails_wgpu::config::ModelConfig;

fuzz_target!(|input: &[u8]| {
    let _ = ModelConfig::from_gin(harness::file("input.gin", input));
});
