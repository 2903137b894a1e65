//! The selection of the best survivors of long lists, by many workgroups for each: see `shaders/lib/select_long.wgsl`.

use super::kernel::{ParamsLayout, params};
use super::survivors::Survivors;
use super::top_k::SelectParams;
use super::{Bind, Buffer, KernelSpec, Recorder};

/// Digits of the key that are counted by all workgroups.
const COUNTED: usize = 3;

/// Hits that share those digits, as many as there is room for.
const ROOM: usize = 4096;

/// Bytes of `Progress`.
const PROGRESS_BYTES: usize = 20;

/// What the kernels hand on to each other.
#[derive(Debug)]
pub(super) struct LongSelect {
    /// (B, COUNTED, 256).
    counts: Buffer,
    /// (B) of `Progress`.
    progress: Buffer,
    /// (B, ROOM) hits.
    gathered: Buffer,
    /// The lists that the best hits go to, and that change places with those of the survivors.
    spare: Buffer,
}

impl LongSelect {
    /// For lists like those of `survivors`.
    pub fn new(recorder: &mut Recorder, survivors: &Survivors) -> LongSelect {
        let n_queries = survivors.n_queries;
        let made = LongSelect {
            counts: recorder.temporary((n_queries * COUNTED * 256 * 4) as u64),
            progress: recorder.temporary((n_queries * PROGRESS_BYTES) as u64),
            gathered: recorder.temporary((n_queries * ROOM * 8) as u64),
            spare: recorder.temporary(survivors.hits.bytes()),
        };
        recorder.clear(&made.counts);
        recorder.clear(&made.progress);
        made
    }

    /// Cuts every list to its best `k` and raises its threshold.
    pub fn select(&mut self, recorder: &mut Recorder, k: usize, survivors: &mut Survivors, workgroups: usize) {
        let LongSelect { counts, progress, gathered, spare } = self;
        let Survivors { n_queries, capacity, state, hits } = survivors;
        let (k, capacity, n_queries) = (k as u32, *capacity as u32, *n_queries as u32);
        let (all, one) = ([workgroups as u32, n_queries, 1], [n_queries, 1, 1]);
        for digit in 0..COUNTED as u32 {
            recorder.dispatch(&count_kernel(), &CountParams { k, capacity, digit }, &[state, hits, counts], all);
        }
        let params = SelectParams { k, capacity };
        recorder.dispatch(&gather_kernel(), &params, &[state, hits, counts, progress, gathered], all);
        recorder.dispatch(&finish_kernel(), &params, &[state, hits, gathered, counts, progress], one);
        recorder.dispatch(&compact_kernel(), &params, &[hits, progress, spare], all);
        std::mem::swap(hits, spare);
    }
}

const RADIX: &str = include_str!("../../../shaders/lib/radix.wgsl");
const LONG: &str = include_str!("../../../shaders/lib/select_long.wgsl");
const COUNTS: &str = include_str!("../../../shaders/lib/counted.wgsl");

fn count_kernel() -> KernelSpec {
    let sources = &[RADIX, LONG, COUNTS, include_str!("../../../shaders/select_count.wgsl")];
    KernelSpec::of_files("select_count", sources, &[Bind::Params, Bind::Read, Bind::Read, Bind::Write])
}

fn gather_kernel() -> KernelSpec {
    const BINDINGS: &[Bind] = &[Bind::Params, Bind::Read, Bind::Read, Bind::Write, Bind::Write, Bind::Write];
    let sources = &[RADIX, LONG, COUNTS, include_str!("../../../shaders/select_gather.wgsl")];
    KernelSpec::of_files("select_gather", sources, BINDINGS)
}

fn finish_kernel() -> KernelSpec {
    const BINDINGS: &[Bind] = &[Bind::Params, Bind::Write, Bind::Read, Bind::Read, Bind::Write, Bind::Write];
    let sources = &[RADIX, LONG, COUNTS, include_str!("../../../shaders/select_finish.wgsl")];
    KernelSpec::of_files("select_finish", sources, BINDINGS)
}

fn compact_kernel() -> KernelSpec {
    let sources = &[RADIX, LONG, include_str!("../../../shaders/select_compact.wgsl")];
    KernelSpec::of_files("select_compact", sources, &[Bind::Params, Bind::Read, Bind::Write, Bind::Write])
}

params!(CountParams { k: u32, capacity: u32, digit: u32 });

/// All kernels, for tests of `shaders/`.
pub(super) fn kernel_specs() -> Vec<(KernelSpec, ParamsLayout)> {
    vec![
        (count_kernel(), CountParams::LAYOUT),
        (gather_kernel(), SelectParams::LAYOUT),
        (finish_kernel(), SelectParams::LAYOUT),
        (compact_kernel(), SelectParams::LAYOUT),
    ]
}
