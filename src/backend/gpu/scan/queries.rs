//! The query side of a scan as its kernels read it: packed queries, and lists of positions.

use super::pack::Layout;
use super::quantized_queries::quantized;
use super::variant::ShaderVariant;
use crate::backend::gpu::device::Buffer;
use crate::backend::gpu::kernels::Recorder;

/// One list of positions per query as kernels read them: offsets from the start of the array, then positions.
pub(crate) fn position_lists<'a>(lists: impl ExactSizeIterator<Item = &'a [u32]>) -> Vec<u32> {
    let mut array = vec![0; lists.len() + 1];
    array[0] = array.len() as u32;
    for (i, list) in lists.enumerate() {
        array.extend(list);
        array[i + 1] = array.len() as u32;
    }
    array
}

/// Queries as a kernel of `variant` reads them; `parts` are row-major arrays of floats: vectors, then what else there is.
pub(crate) fn packed_queries(
    recorder: &mut Recorder,
    variant: &ShaderVariant,
    queries_per_thread: usize,
    parts: &[Buffer],
    n: usize,
) -> Buffer {
    let layout = Layout::Queries(queries_per_thread);
    let integers = variant.quantized.zip(parts.split_first());
    let integers = integers.map(|((groups, width), (vectors, others))| {
        let [planes, scales] = quantized(recorder, vectors, n * groups, width);
        [&[planes, scales], others].concat()
    });
    let packed = recorder.temporary(layout.bytes(&variant.queries, n));
    layout.pack(recorder, &variant.queries, integers.as_deref().unwrap_or(parts), n, &packed, 0);
    packed
}
