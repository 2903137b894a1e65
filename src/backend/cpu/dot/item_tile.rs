//! A tile of items as (columns, TILE) floats: each item in a SIMD lane of its own.

use std::ops::Range;

use half::f16;
use pulp::{Simd, WithSimd};

use super::micro_kernel::TILE;
use crate::backend::cpu::simd::aligned::AlignedFloats;
use crate::backend::cpu::simd::run_with_kernel;
use crate::backend::cpu::simd::transpose::{SIDE, Transpose, transpose_rows};
use crate::backend::cpu::simd::widen::Widen;
use crate::tables::{Table, Values};

/// Items in lanes, and the rows that they are made of. Scratch memory of one thread.
#[derive(Default)]
pub struct ItemTile {
    values: AlignedFloats,
    rows: AlignedFloats,
}

impl ItemTile {
    /// (groups * group_width, TILE): the vectors `groups` of the items `row_of(0..n)` of `table`, for 1 <= n <= TILE. Lanes beyond the
    /// last item repeat it.
    pub fn load(&mut self, table: &Table, groups: Range<usize>, n: usize, row_of: impl Fn(usize) -> usize) -> &[f32] {
        let width = groups.len() * table.group_width();
        self.values.resize(width * TILE);
        self.rows.resize(width * SIDE);
        let items = std::array::from_fn(|lane| row_of(lane.min(n - 1)));
        let (rows, out) = (&mut self.rows, &mut self.values);
        run_with_kernel!(kernel => Fill { kernel, table, groups, items, rows, out });
        &self.values
    }

    /// (columns, TILE): what was loaded last.
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}

struct Fill<'a, K> {
    kernel: K,
    table: &'a Table,
    groups: Range<usize>,
    items: [usize; TILE],
    rows: &'a mut [f32],
    out: &'a mut [f32],
}

impl<K: Transpose + Widen> WithSimd for Fill<'_, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Fill { kernel, table, groups, items, rows, out } = self;
        let (all, group_width) = (table.width(), table.group_width());
        let (first, width) = (groups.start * group_width, groups.len() * group_width);
        for lane in (0..TILE).step_by(SIDE) {
            let starts: [usize; SIDE] = std::array::from_fn(|i| items[lane + i] * all + first);
            match table.values() {
                Values::F32(values) => {
                    let values = values.as_slice();
                    transpose_rows(&kernel, starts.map(|start| &values[start..start + width]), out, lane, TILE);
                }
                Values::F16(values) => {
                    let values: &[f16] = values.as_slice();
                    for (start, row) in starts.iter().zip(rows.chunks_exact_mut(width.max(1))) {
                        kernel.widen(&values[*start..*start + width], row);
                    }
                    transpose_rows(
                        &kernel,
                        std::array::from_fn(|i| &rows[i * width..(i + 1) * width]),
                        out,
                        lane,
                        TILE,
                    );
                }
                Values::I8(values) => {
                    let (values, scales) = (values.as_slice(), table.scales());
                    for (i, start) in starts.iter().enumerate() {
                        let row = &mut rows[i * width..(i + 1) * width];
                        let scales = &scales[items[lane + i] * table.groups() + groups.start..][..groups.len()];
                        let vectors = values[*start..*start + width].chunks_exact(group_width.max(1));
                        for ((vector, out), scale) in vectors.zip(row.chunks_exact_mut(group_width.max(1))).zip(scales)
                        {
                            out.iter_mut().zip(vector).for_each(|(out, &value)| *out = f32::from(value) * scale);
                        }
                    }
                    transpose_rows(
                        &kernel,
                        std::array::from_fn(|i| &rows[i * width..(i + 1) * width]),
                        out,
                        lane,
                        TILE,
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::Dtype;

    #[test]
    fn every_item_gets_the_lane_of_its_place() {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::I8] {
            for (groups, group_width) in [(1, 1), (3, 5), (2, 8), (1, 19)] {
                let width = groups * group_width;
                let mut table = Table::new(groups, group_width, dtype);
                table.append(&(0..50 * width).map(|i| (i as f32 * 0.7).sin()).collect::<Vec<f32>>());
                for range in [0..groups, groups - 1..groups] {
                    for n in [1, 7, 32] {
                        let mut item_tile = ItemTile::default();
                        let row_of = |lane: usize| (lane * 29 + 3) % 50;
                        let tile = item_tile.load(&table, range.clone(), n, row_of);
                        assert_eq!(tile.len(), range.len() * group_width * TILE);
                        for lane in 0..TILE {
                            let row = row_of(lane.min(n - 1));
                            let expected = &table.read_rows(row..row + 1)[range.start * group_width..];
                            for column in 0..range.len() * group_width {
                                assert_eq!(tile[column * TILE + lane], expected[column], "{dtype:?} {lane} {column}");
                            }
                        }
                    }
                }
            }
        }
    }
}
