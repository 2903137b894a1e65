//! Interleaved tables: what the scan reads of a query or an item, laid out so that neighbouring threads read
//! neighbouring words.

use super::kernel::{ParamsLayout, params};
use super::{Bind, Buffer, KernelSpec, Recorder, grid_1d};
use crate::backend::Dtype;

/// Threads of a workgroup of `pack.wgsl`.
const WIDTH: u64 = 256;

/// The values that a table holds of each of its rows: parts one after the other, each of some groups of some width,
/// every group padded to quads of four values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// (groups, width) of each part.
    pub parts: Vec<(usize, usize)>,
}

impl Record {
    pub fn quads(&self) -> usize {
        self.parts.iter().map(|(groups, width)| groups * width.div_ceil(4)).sum()
    }
}

/// Which rows lie side by side in a table, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Quads of `TILE` items side by side.
    Items(Dtype),
    /// Single values of so many queries side by side.
    Queries(usize),
}

impl Layout {
    /// Rows side by side.
    pub fn interleave(self) -> usize {
        match self {
            Layout::Items(_) => super::plan::TILE,
            Layout::Queries(lanes) => lanes,
        }
    }

    fn quad_words(self) -> usize {
        if self == Layout::Items(Dtype::F16) { 2 } else { 4 }
    }

    /// Bytes of a table of `n_rows` rows.
    pub fn bytes(self, record: &Record, n_rows: usize) -> u64 {
        (n_rows.next_multiple_of(self.interleave()) * record.quads() * self.quad_words() * 4) as u64
    }

    /// The kernel that writes such tables.
    pub fn kernel(self) -> KernelSpec {
        let source = include_str!("../../../shaders/pack.wgsl");
        let flag = |on| if on { 1.0 } else { 0.0 };
        KernelSpec {
            constants: vec![
                ("INTERLEAVE", self.interleave() as f64),
                ("SPLIT_QUADS", flag(matches!(self, Layout::Queries(_)))),
                ("HALVES", flag(self.quad_words() == 2)),
            ],
            ..KernelSpec::new("pack", source, &[Bind::Params, Bind::Read, Bind::Write])
        }
    }

    /// Writes `n_rows` rows into `table` from tile `first_tile` on; `parts` are the row-major arrays of the record's parts.
    pub fn pack(
        self,
        recorder: &mut Recorder,
        record: &Record,
        parts: &[&Buffer],
        n_rows: usize,
        table: &Buffer,
        first_tile: usize,
    ) {
        let n_tiles = n_rows.div_ceil(self.interleave());
        let mut first_quad = 0;
        for (&(groups, width), part) in record.parts.iter().zip(parts) {
            let quads = groups * width.div_ceil(4);
            let params = PackParams {
                n_rows: n_rows as u32,
                groups: groups as u32,
                width: width as u32,
                n_tiles: n_tiles as u32,
                first_tile: first_tile as u32,
                record_quads: record.quads() as u32,
                first_quad: first_quad as u32,
            };
            let words = (n_tiles * quads * self.interleave() * self.quad_words()) as u64;
            recorder.dispatch(&self.kernel(), &params, &[part, table], grid_1d(words.div_ceil(WIDTH)));
            first_quad += quads;
        }
    }
}

params!(PackParams {
    n_rows: u32,
    groups: u32,
    width: u32,
    n_tiles: u32,
    first_tile: u32,
    record_quads: u32,
    first_quad: u32
});

/// The kernel of every layout, for tests of `shaders/`.
pub(super) fn kernel_specs() -> Vec<(KernelSpec, ParamsLayout)> {
    let layouts = [Layout::Items(Dtype::F32), Layout::Items(Dtype::F16), Layout::Queries(1), Layout::Queries(4)];
    layouts.map(|layout| (layout.kernel(), PackParams::LAYOUT)).to_vec()
}
