//! Weights in safetensors files, with the hyper-parameters in their metadata.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rails_wgpu::checkpoint::Checkpoint;
use rails_wgpu::config::find_config;
use rails_wgpu::model::Model;

fuzz_target!(|input: &[u8]| {
    let path = harness::file("input.safetensors", input);
    harness::read_checkpoint(&path);
    let Ok(checkpoint) = Checkpoint::open(&path) else { return };
    if let Ok(config) = find_config(&checkpoint, None) {
        let _ = Model::load(&checkpoint, config);
    }
});
