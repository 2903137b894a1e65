//! Quantized queries: query vectors as 16-bit integers with a scale, for inner products with 8-bit items.

use crate::backend::gpu::device::{Bind, Buffer, KernelSpec, ParamsLayout, grid_1d, params, wgsl};
use crate::backend::gpu::kernels::Recorder;

fn kernel() -> KernelSpec {
    let files = &[wgsl!("scan/quantize_queries.wgsl")];
    KernelSpec::of_files("quantize_queries", files, &[Bind::Params, Bind::Read, Bind::Write, Bind::Write])
}

/// `n` vectors (n, width) as integers and scales: (n, ceil(width / 4), 2) words of high and low bytes, and (n) powers of two.
/// A number is off by half a scale at most, and no scale exceeds the largest magnitude of its vector divided by 16256.
pub(crate) fn quantized(recorder: &mut Recorder, vectors: &Buffer, n: usize, width: usize) -> [Buffer; 2] {
    let planes = recorder.temporary((8 * n * width.div_ceil(4)) as u64);
    let scales = recorder.temporary(4 * n as u64);
    let params = QuantizeParams { n_vectors: n as u32, width: width as u32 };
    recorder.dispatch(&kernel(), &params, &[vectors, &planes, &scales], grid_1d(n as u64));
    [planes, scales]
}

params!(QuantizeParams { n_vectors: u32, width: u32 });

/// The kernel, for tests of `shaders/`.
pub(crate) fn kernel_spec() -> (KernelSpec, ParamsLayout) {
    (kernel(), QuantizeParams::LAYOUT)
}
