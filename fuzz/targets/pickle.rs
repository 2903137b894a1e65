//! Files of PyTorch: whole ones, and pickles inside a file that is sound but for them.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    harness::read_checkpoint(&harness::file("input.pt", input));
    if !input.starts_with(b"PK") {
        harness::read_checkpoint(&harness::file("input.pt", &harness::pt(input)));
    }
});
