//! The manifest of an index folder: its checksum is right, what it says of the files beside it need not be.
#![no_main]

use std::sync::{Arc, Once};

use libfuzzer_sys::fuzz_target;
use rails_wgpu::backend::Backend;
use rails_wgpu::backend::cpu::Cpu;
use rails_wgpu::index::{ItemIndex, OpenOptions};

fuzz_target!(|input: &[u8]| {
    static FILES: Once = Once::new();
    FILES.call_once(|| {
        let stored = harness::root().join("tests/index_v1/f32_components");
        for entry in std::fs::read_dir(stored).expect("the repository has index folders") {
            let entry = entry.expect("the repository can be read");
            std::fs::copy(entry.path(), harness::folder().join(entry.file_name())).expect("files can be copied");
        }
    });
    harness::file("manifest.json", &harness::manifest(input));
    let _ = ItemIndex::verify(harness::folder());
    let cpu: Arc<dyn Backend> = Arc::new(Cpu::default());
    if let Ok(index) = ItemIndex::open(harness::folder(), &[cpu], OpenOptions::default()) {
        let _ = index.model();
    }
});
