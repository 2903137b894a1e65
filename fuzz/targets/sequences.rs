//! Sequences of events, strictly and with bad lines left out.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use rails_wgpu::dataset::{Dataset, ReadOptions};

fuzz_target!(|input: &[u8]| {
    for skip_bad_lines in [false, true] {
        let options = ReadOptions::default().with_skip_bad_lines(skip_bad_lines);
        let _ = Dataset::parse(&mut &input[..], Path::new("input.csv"), options);
    }
});
