//! The kernels of this room: their files, bindings and uniform parameters.

use crate::backend::gpu::device::{Bind, KernelSpec, ParamsLayout, params, wgsl};

const QUERY_STATE: &str = wgsl!("select/lib/query_state.wgsl");
const LIST_PARAMS: &str = wgsl!("select/lib/list_params.wgsl");

/// Threads of a workgroup of the kernels here.
pub const WIDTH: usize = 256;

/// Keeps the best k hits of every list.
pub fn select_kernel() -> KernelSpec {
    KernelSpec::of_files(
        "select",
        &[QUERY_STATE, LIST_PARAMS, RADIX, wgsl!("select/select.wgsl")],
        &[Bind::Params, Bind::Write, Bind::Write],
    )
}

const SORT: &str = wgsl!("select/lib/sort.wgsl");
const SORT_BINDINGS: &[Bind] = &[Bind::Params, Bind::Read, Bind::Read, Bind::Write];

/// Moves the hits of each list to one of k, sorted in runs of a block.
pub fn sort_kernel() -> KernelSpec {
    KernelSpec::of_files(
        "sort_blocks",
        &[QUERY_STATE, LIST_PARAMS, SORT, wgsl!("select/sort_blocks.wgsl")],
        SORT_BINDINGS,
    )
}

/// Merges up to 16 runs.
pub fn merge_kernel() -> KernelSpec {
    KernelSpec::of_files("merge_runs", &[QUERY_STATE, SORT, wgsl!("select/merge_runs.wgsl")], SORT_BINDINGS)
}

/// The threshold of a sample as that of an empty list.
pub fn threshold_kernel() -> KernelSpec {
    let sources = &[QUERY_STATE, wgsl!("select/take_threshold.wgsl")];
    KernelSpec::of_files("take_threshold", sources, &[Bind::Params, Bind::Write])
}

/// The hits of some vectors as one list for each query.
pub fn unite_kernel() -> KernelSpec {
    const BINDINGS: &[Bind] = &[Bind::Params, Bind::Read, Bind::Read, Bind::Write, Bind::Write, Bind::Write];
    KernelSpec::of_files("unite_hits", &[QUERY_STATE, wgsl!("select/unite_hits.wgsl")], BINDINGS)
}

/// Hits as two arrays.
pub fn split_kernel() -> KernelSpec {
    let sources = &[QUERY_STATE, wgsl!("lib/order_key.wgsl"), wgsl!("select/split_hits.wgsl")];
    KernelSpec::of_files("split_hits", sources, &[Bind::Params, Bind::Read, Bind::Read, Bind::Write, Bind::Write])
}

const RADIX: &str = wgsl!("select/lib/radix.wgsl");
const LONG: &str = wgsl!("select/lib/select_long.wgsl");
const COUNTS: &str = wgsl!("select/lib/counted_digits.wgsl");

/// Counts the values of one digit in long lists.
pub fn count_kernel() -> KernelSpec {
    let sources = &[QUERY_STATE, RADIX, LONG, COUNTS, wgsl!("select/select_count.wgsl")];
    KernelSpec::of_files("select_count", sources, &[Bind::Params, Bind::Read, Bind::Read, Bind::Write])
}

/// Gathers the hits that share the counted digits with the k-th one.
pub fn gather_kernel() -> KernelSpec {
    const BINDINGS: &[Bind] = &[Bind::Params, Bind::Read, Bind::Read, Bind::Write, Bind::Write, Bind::Write];
    let sources = &[QUERY_STATE, LIST_PARAMS, RADIX, LONG, COUNTS, wgsl!("select/select_gather.wgsl")];
    KernelSpec::of_files("select_gather", sources, BINDINGS)
}

/// Finds the k-th hit of long lists.
pub fn finish_kernel() -> KernelSpec {
    const BINDINGS: &[Bind] = &[Bind::Params, Bind::Write, Bind::Read, Bind::Read, Bind::Write, Bind::Write];
    let sources = &[QUERY_STATE, LIST_PARAMS, RADIX, LONG, COUNTS, wgsl!("select/select_finish.wgsl")];
    KernelSpec::of_files("select_finish", sources, BINDINGS)
}

/// Moves the best k hits of long lists to other lists.
pub fn compact_kernel() -> KernelSpec {
    let sources = &[QUERY_STATE, LIST_PARAMS, LONG, wgsl!("select/select_compact.wgsl")];
    KernelSpec::of_files("select_compact", sources, &[Bind::Params, Bind::Read, Bind::Write, Bind::Write])
}

params!(SelectParams { k: u32, capacity: u32 });

params!(MergeParams { k: u32, run: u32 });

params!(SplitParams { k: u32, first_query: u32 });

params!(ThresholdParams { n_queries: u32 });

params!(UniteParams { found_capacity: u32, per_query: u32, slots: u32, capacity: u32 });

params!(CountParams { k: u32, capacity: u32, digit: u32 });

/// All kernels, for tests of `shaders/`.
pub(crate) fn kernel_specs() -> Vec<(KernelSpec, ParamsLayout)> {
    vec![
        (select_kernel(), SelectParams::LAYOUT),
        (sort_kernel(), SelectParams::LAYOUT),
        (merge_kernel(), MergeParams::LAYOUT),
        (threshold_kernel(), ThresholdParams::LAYOUT),
        (unite_kernel(), UniteParams::LAYOUT),
        (split_kernel(), SplitParams::LAYOUT),
        (count_kernel(), CountParams::LAYOUT),
        (gather_kernel(), SelectParams::LAYOUT),
        (finish_kernel(), SelectParams::LAYOUT),
        (compact_kernel(), SelectParams::LAYOUT),
    ]
}
