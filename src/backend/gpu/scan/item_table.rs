//! Item tables on the device: what they hold of an item, and how they are made from tables on the host.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use super::pack::{Layout, Record};
use super::plan::{ScanLimits, TILE};
use crate::Result;
use crate::backend::Dtype;
use crate::backend::SearchContext;
use crate::backend::gpu::device::{Buffer, Gpu};
use crate::backend::gpu::kernels::Recorder;
use crate::tables::Table;

/// Bytes of a cache line.
const LINE_BYTES: usize = 128;

/// Bytes of the widest upload while a table is built.
const BUILD_BYTES: usize = 64 << 20;

/// What a table holds of an item: vectors and a gate part in the number format of the index, then full-precision
/// numbers: the scales of 8-bit vectors, inverse norms.
#[derive(Clone, Debug)]
pub(crate) struct ItemLayout {
    pub dtype: Dtype,
    pub record: Record,
    /// Where things begin, in quads; the end of the record for what is not there.
    pub gate: usize,
    pub scales: usize,
    pub gate_scale: usize,
    pub norms: usize,
}

impl ItemLayout {
    /// Of `groups` vectors of some width, a gate part of so many values, so many norms.
    pub fn new(dtype: Dtype, (groups, width): (usize, usize), gate: Option<usize>, norms: Option<usize>) -> ItemLayout {
        let per_word = 4 / dtype.bytes();
        let scaled = dtype == Dtype::I8;
        let parts = [
            Some((groups, width.div_ceil(per_word))),
            gate.map(|width| (1, width.div_ceil(per_word))),
            scaled.then_some((1, groups)),
            gate.filter(|_| scaled).map(|_| (1, 1)),
            norms.map(|norms| (1, norms)),
        ];
        let record = Record { quad_words: 4 / per_word, parts: parts.iter().flatten().copied().collect(), run: 1 };
        let start = |part: usize| record.quads_before(parts[..part].iter().flatten().count());
        let [gate, scales, gate_scale, norms] = [1, 2, 3, 4].map(start);
        ItemLayout { dtype, gate, scales, gate_scale, norms, record }
    }

    /// For tables of which single items are read, too: all of a cache line belongs to one item; of half a line, or a quarter and so
    /// on, where whole ones would make the record longer by more than an eighth.
    pub fn in_lines(mut self) -> ItemLayout {
        let quads = self.record.quads();
        let wasted = |run: usize| quads.next_multiple_of(run) - quads;
        let mut run = LINE_BYTES / (4 * self.record.quad_words);
        while 8 * wasted(run) > quads {
            run /= 2;
        }
        self.record.run = run;
        self
    }

    /// Bytes of a tile of items.
    pub fn tile_bytes(&self) -> u64 {
        Layout::Items.bytes(&self.record, TILE)
    }
}

/// Tables on the host that become one on the device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ItemSource<'a> {
    pub vectors: &'a Table,
    pub gate: Option<&'a Table>,
    pub norms: Option<&'a Table>,
    /// Whether single items are read, too.
    pub in_lines: bool,
}

impl<'a> ItemSource<'a> {
    /// Vectors alone.
    pub fn plain(vectors: &'a Table) -> ItemSource<'a> {
        ItemSource { vectors, gate: None, norms: None, in_lines: false }
    }

    pub fn layout(&self) -> ItemLayout {
        let vectors = (self.vectors.groups(), self.vectors.group_width());
        let width = |table: Option<&Table>| table.map(Table::width);
        let layout = ItemLayout::new(self.vectors.dtype(), vectors, width(self.gate), width(self.norms));
        if self.in_lines { layout.in_lines() } else { layout }
    }

    /// The parts of the record, row-major.
    fn parts(&self, rows: Range<usize>) -> Vec<Cow<'a, [u8]>> {
        let values = [Some(self.vectors), self.gate].into_iter().flatten();
        let scales = values.clone().filter(|table| !table.scales().is_empty());
        let scale_bytes = |table: &'a Table| {
            let groups = table.groups();
            Cow::Borrowed(bytemuck::cast_slice(&table.scales()[rows.start * groups..rows.end * groups]))
        };
        let values = values.map(|table| padded(table, rows.clone()));
        values.chain(scales.map(scale_bytes)).chain(self.norms.map(|table| padded(table, rows.clone()))).collect()
    }
}

/// The numbers of some rows, every vector padded to whole words.
fn padded(table: &Table, rows: Range<usize>) -> Cow<'_, [u8]> {
    let vector = table.group_width() * table.dtype().bytes();
    let bytes = &table.parts().values[rows.start * table.groups() * vector..rows.end * table.groups() * vector];
    if vector.is_multiple_of(4) {
        return Cow::Borrowed(bytes);
    }
    let padding = vector.next_multiple_of(4) - vector;
    let vectors = bytes.chunks_exact(vector);
    Cow::Owned(vectors.flat_map(|bytes| bytes.iter().copied().chain(std::iter::repeat_n(0, padding))).collect())
}

/// A table on the device, in shards of rows.
#[derive(Debug)]
pub(crate) struct ItemTable {
    pub layout: ItemLayout,
    /// Rows of each shard; all shards but the last are whole tiles.
    pub rows: Vec<Range<usize>>,
    pub shards: Vec<Buffer>,
}

impl ItemTable {
    /// Uploads and packs `source`.
    ///
    /// # Errors
    /// If it does not fit, or the device fails.
    pub fn new(
        context: &SearchContext,
        gpu: &Arc<Gpu>,
        source: ItemSource,
        shards: &[Range<usize>],
        limits: &ScanLimits,
    ) -> Result<ItemTable> {
        let layout = source.layout();
        let bytes = BUILD_BYTES.min(limits.binding_bytes as usize);
        let chunk = (bytes / layout.tile_bytes() as usize).max(1) * TILE;
        let mut table = ItemTable { layout, rows: shards.to_vec(), shards: Vec::with_capacity(shards.len()) };
        let mut recorder = Recorder::with_context(context, gpu);
        for rows in shards {
            let shard = gpu.buffer(Layout::Items.bytes(&table.layout.record, rows.len()))?;
            for from in rows.clone().step_by(chunk) {
                let n = chunk.min(rows.end - from);
                let parts = source.parts(from..from + n);
                let parts: Vec<Buffer> = parts.iter().map(|part| recorder.upload(part)).collect();
                let first_tile = (from - rows.start) / TILE;
                Layout::Items.pack(&mut recorder, &table.layout.record, &parts, n, &shard, first_tile);
                // Waiting for each chunk bounds the memory of uploads that are under way.
                recorder.read_bytes(&shard.slice(0..4))?;
            }
            table.shards.push(shard);
        }
        Ok(table)
    }

    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(Buffer::bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_record_lie_one_after_the_other() {
        // Three vectors of five values, six gate values, two norms.
        let layout = |dtype| ItemLayout::new(dtype, (3, 5), Some(6), Some(2));
        let starts = |layout: &ItemLayout| [layout.gate, layout.scales, layout.gate_scale, layout.norms];
        let f32 = layout(Dtype::F32);
        assert_eq!((starts(&f32), f32.record.quads(), f32.record.quad_words), ([6, 8, 8, 8], 9, 4));
        let f16 = layout(Dtype::F16);
        assert_eq!((starts(&f16), f16.record.quads(), f16.record.quad_words), ([6, 8, 8, 8], 9, 2));
        let i8 = layout(Dtype::I8);
        assert_eq!((starts(&i8), i8.record.quads(), i8.record.quad_words), ([6, 8, 11, 12], 14, 1));
        let in_lines = [f32, f16, i8].map(ItemLayout::in_lines);
        assert_eq!(
            in_lines.clone().map(|layout| (layout.record.run, layout.record.quads())),
            [(2, 10), (2, 10), (2, 14)]
        );
        assert_eq!(in_lines.map(|layout| layout.tile_bytes()), [10 << 10, 5 << 10, 14 << 8]);
    }

    #[test]
    fn single_items_are_read_by_lines_that_waste_little() {
        let layout = |dtype| ItemLayout::new(dtype, (4, 64), Some(32), None).in_lines().record;
        // 72 quads of 16 bytes, as many of 8, and 77 of 4.
        let [f32, f16, i8] = [Dtype::F32, Dtype::F16, Dtype::I8].map(layout);
        assert_eq!(
            [(f32.run, f32.quads()), (f16.run, f16.quads()), (i8.run, i8.quads())],
            [(8, 72), (16, 80), (16, 80)]
        );
    }

    #[test]
    fn vectors_are_padded_to_words() {
        let mut table = Table::new(2, 3, Dtype::I8);
        table.append(&[127.0, -127.0, 1.0, 0.0, 254.0, 2.0, 0.0, 0.0, 0.0, 127.0, 0.0, -1.0]);
        let parts = ItemSource::plain(&table).parts(0..2);
        assert_eq!(*parts[0], [127, 129, 1, 0, 0, 127, 1, 0, 0, 0, 0, 0, 127, 0, 255, 0]);
        assert_eq!(*parts[1], *bytemuck::cast_slice::<f32, u8>(&[1.0, 2.0, 0.0, 1.0]));
        let parts = ItemSource::plain(&table).parts(1..2);
        assert_eq!((parts[0].len(), parts[1].len()), (8, 8));
    }
}
