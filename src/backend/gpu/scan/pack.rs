//! Interleaved tables: what the scan reads of a query or an item, laid out so that neighbouring threads read
//! neighbouring words.

use super::plan::TILE;
use crate::backend::gpu::device::{Bind, Buffer, KernelSpec, ParamsLayout, grid_1d, params, wgsl};
use crate::backend::gpu::kernels::Recorder;

/// Threads of a workgroup of `pack.wgsl`.
const WIDTH: u64 = 256;

/// The values that a table holds of each of its rows: parts one after the other, each of some groups of some words,
/// every group padded to quads of four values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Words of a quad: four for values of 32 bits, two for 16, one for 8.
    pub quad_words: usize,
    /// (groups, words of a group) of each part.
    pub parts: Vec<(usize, usize)>,
    /// Quads of a row that lie side by side; a power of two.
    pub run: usize,
}

impl Record {
    /// Of 32-bit floats.
    pub fn floats(parts: Vec<(usize, usize)>) -> Record {
        Record { quad_words: 4, parts, run: 1 }
    }

    /// Quads of all parts, in whole runs.
    pub fn quads(&self) -> usize {
        self.quads_before(self.parts.len()).next_multiple_of(self.run)
    }

    /// First quad of part `part`.
    pub fn quads_before(&self, part: usize) -> usize {
        self.parts[..part].iter().map(|(groups, words)| groups * words.div_ceil(self.quad_words)).sum()
    }
}

/// Which rows lie side by side in a table, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Runs of quads of `TILE` items side by side.
    Items,
    /// Single words of so many queries side by side.
    Queries(usize),
}

impl Layout {
    /// Rows side by side.
    pub fn interleave(self) -> usize {
        match self {
            Layout::Items => TILE,
            Layout::Queries(queries) => queries,
        }
    }

    /// Bytes of a table of `n_rows` rows.
    pub fn bytes(self, record: &Record, n_rows: usize) -> u64 {
        (n_rows.next_multiple_of(self.interleave()) * record.quads() * record.quad_words * 4) as u64
    }

    /// The kernel that writes such tables of records with so many words of a quad, and quads of a run.
    pub fn kernel(self, (quad_words, run): (usize, usize)) -> KernelSpec {
        let files = &[wgsl!("scan/pack.wgsl")];
        KernelSpec {
            constants: vec![
                ("INTERLEAVE", self.interleave() as f64),
                ("SPLIT_QUADS", f64::from(u8::from(self != Layout::Items))),
                ("QUAD_WORDS", quad_words as f64),
                ("RUN", run as f64),
            ],
            ..KernelSpec::of_files("pack", files, &[Bind::Params, Bind::Read, Bind::Write])
        }
    }

    /// Writes `n_rows` rows into `table` from tile `first_tile` on; `parts` are the row-major arrays of the record's parts.
    pub fn pack(
        self,
        recorder: &mut Recorder,
        record: &Record,
        parts: &[Buffer],
        n_rows: usize,
        table: &Buffer,
        first_tile: usize,
    ) {
        let n_tiles = n_rows.div_ceil(self.interleave());
        for (index, (&(groups, width), part)) in record.parts.iter().zip(parts).enumerate() {
            let params = PackParams {
                n_rows: n_rows as u32,
                groups: groups as u32,
                width: width as u32,
                n_tiles: n_tiles as u32,
                first_tile: first_tile as u32,
                record_quads: record.quads() as u32,
                first_quad: record.quads_before(index) as u32,
            };
            let quads = record.quads_before(index + 1) - record.quads_before(index);
            let words = (n_tiles * quads * self.interleave() * record.quad_words) as u64;
            let kernel = self.kernel((record.quad_words, record.run));
            recorder.dispatch(&kernel, &params, &[part, table], grid_1d(words.div_ceil(WIDTH)));
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
pub(crate) fn kernel_specs() -> Vec<(KernelSpec, ParamsLayout)> {
    let items = [(1, 1), (1, 32), (2, 16), (4, 1), (4, 8)].map(|record| Layout::Items.kernel(record));
    let queries = [1, 4].map(|quad_words| [1, 2, 4].map(|queries| Layout::Queries(queries).kernel((quad_words, 1))));
    [&items[..], &queries.concat()].concat().into_iter().map(|kernel| (kernel, PackParams::LAYOUT)).collect()
}
