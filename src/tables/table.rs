//! One row-major table.

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::pages::Pages;
use super::values::{Bytes, Dtype, Foreign, Values};

/// A table of N items: `groups` vectors of `group_width` numbers each, all of an item side by side. 8-bit vectors have
/// one scale each: value = integer * scale.
#[derive(Debug)]
pub struct Table {
    values: Values,
    scales: Option<ScaleColumn>,
    groups: usize,
    group_width: usize,
}

/// (N, groups)
struct ScaleColumn(Bytes<f32>);

impl std::fmt::Debug for ScaleColumn {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} scales", self.0.as_slice().len())
    }
}

/// What a table is stored as.
pub struct TableParts<'a> {
    /// (N, groups * group_width) little-endian numbers of the table's format.
    pub values: &'a [u8],
    /// (N, groups) little-endian f32, for 8-bit tables.
    pub scales: Option<&'a [u8]>,
}

impl Table {
    /// An empty table that items will be appended to.
    pub fn new(groups: usize, group_width: usize, dtype: Dtype) -> Table {
        let values = match dtype {
            Dtype::F32 => Values::F32(Bytes::Owned(Pages::default())),
            Dtype::F16 => Values::F16(Bytes::Owned(Pages::default())),
            Dtype::I8 => Values::I8(Bytes::Owned(Pages::default())),
        };
        let scales = (dtype == Dtype::I8).then(|| ScaleColumn(Bytes::Owned(Pages::default())));
        Table { values, scales, groups, group_width }
    }

    /// A table over memory of somebody else, laid out as [`TableParts`]; `None` if the lengths or the alignment do not
    /// fit, or scales are missing or too many.
    pub fn foreign(
        groups: usize,
        group_width: usize,
        dtype: Dtype,
        values: Foreign,
        scales: Option<Foreign>,
    ) -> Option<Table> {
        let bytes = (*values).as_ref();
        let size = dtype.bytes();
        let row = groups * group_width * size;
        if row == 0 || !bytes.len().is_multiple_of(row) || !(bytes.as_ptr() as usize).is_multiple_of(size) {
            return None;
        }
        let rows = bytes.len() / row;
        let scales = match (dtype, scales) {
            (Dtype::I8, Some(scales)) => {
                let bytes = (*scales).as_ref();
                if bytes.len() != rows * groups * 4 || !(bytes.as_ptr() as usize).is_multiple_of(4) {
                    return None;
                }
                Some(ScaleColumn(Bytes::Foreign(scales)))
            }
            (Dtype::I8, None) | (_, Some(_)) => return None,
            (_, None) => None,
        };
        let values = match dtype {
            Dtype::F32 => Values::F32(Bytes::Foreign(values)),
            Dtype::F16 => Values::F16(Bytes::Foreign(values)),
            Dtype::I8 => Values::I8(Bytes::Foreign(values)),
        };
        Some(Table { values, scales, groups, group_width })
    }

    /// Appends `rows` (n, width), rounding them to the format of the table.
    pub fn append(&mut self, rows: &[f32]) {
        match &mut self.values {
            Values::F32(values) => values.extend(rows.iter().copied()),
            // An infinity would turn into NaN in the next product.
            Values::F16(values) => {
                let (low, high) = (f16::MIN.to_f32(), f16::MAX.to_f32());
                values.extend(rows.iter().map(|value| f16::from_f32(value.clamp(low, high))));
            }
            Values::I8(values) => {
                for vector in rows.chunks_exact(self.group_width.max(1)) {
                    let largest = vector.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
                    // The least number above 0, if need be: all numbers are whole multiples of it.
                    let scale = (largest / 127.0).max(if largest > 0.0 { f32::from_bits(1) } else { 0.0 });
                    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
                    // The inverse of a tiny scale is beyond the range of floats.
                    let integer = |value: f32| if inverse.is_finite() { value * inverse } else { value / scale };
                    values.extend(vector.iter().map(|value| integer(*value).round().clamp(-127.0, 127.0) as i8));
                    if let Some(scales) = &mut self.scales {
                        scales.0.extend([scale].into_iter());
                    }
                }
            }
        }
    }

    /// Copies row `row` of `other`, a table of the same shape and format, to the end.
    pub fn append_row_of(&mut self, other: &Table, row: usize) {
        let range = row * self.width()..(row + 1) * self.width();
        match (&mut self.values, &other.values) {
            (Values::F32(to), Values::F32(from)) => to.extend(from.as_slice()[range].iter().copied()),
            (Values::F16(to), Values::F16(from)) => to.extend(from.as_slice()[range].iter().copied()),
            (Values::I8(to), Values::I8(from)) => to.extend(from.as_slice()[range].iter().copied()),
            _ => {
                let mut values = vec![0.0; self.width()];
                other.read_row(row, &mut values);
                return self.append(&values);
            }
        }
        if let (Some(to), Some(from)) = (&mut self.scales, &other.scales) {
            to.0.extend(from.0.as_slice()[row * self.groups..(row + 1) * self.groups].iter().copied());
        }
    }

    /// Makes room for `rows` more items.
    pub fn reserve(&mut self, rows: usize) {
        let n = rows * self.width();
        match &mut self.values {
            Values::F32(values) => values.change(|values| values.reserve(n)),
            Values::F16(values) => values.change(|values| values.reserve(n)),
            Values::I8(values) => values.change(|values| values.reserve(n)),
        }
        if let Some(scales) = &mut self.scales {
            scales.0.change(|values| values.reserve(rows * self.groups));
        }
    }

    /// Moves the items: item `i` becomes what item `order[i]` was.
    pub fn reorder(&mut self, order: &[usize]) {
        let width = self.width();
        match &mut self.values {
            Values::F32(values) => values.change(|values| reorder(values.as_mut_slice(), width, order)),
            Values::F16(values) => values.change(|values| reorder(values.as_mut_slice(), width, order)),
            Values::I8(values) => values.change(|values| reorder(values.as_mut_slice(), width, order)),
        }
        if let Some(scales) = &mut self.scales {
            scales.0.change(|values| reorder(values.as_mut_slice(), self.groups, order));
        }
    }

    /// Number of items.
    pub fn rows(&self) -> usize {
        let numbers = match &self.values {
            Values::F32(values) => values.as_slice().len(),
            Values::F16(values) => values.as_slice().len(),
            Values::I8(values) => values.as_slice().len(),
        };
        numbers / self.width().max(1)
    }

    /// Numbers of one item.
    pub fn width(&self) -> usize {
        self.groups * self.group_width
    }

    /// Vectors of one item.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// Numbers of one vector.
    pub fn group_width(&self) -> usize {
        self.group_width
    }

    /// Number format.
    pub fn dtype(&self) -> Dtype {
        match &self.values {
            Values::F32(_) => Dtype::F32,
            Values::F16(_) => Dtype::F16,
            Values::I8(_) => Dtype::I8,
        }
    }

    /// The numbers themselves.
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// (N, groups): scales of an 8-bit table; empty for others.
    pub fn scales(&self) -> &[f32] {
        self.scales.as_ref().map_or(&[], |scales| scales.0.as_slice())
    }

    /// As bytes, for files.
    pub fn parts(&self) -> TableParts<'_> {
        TableParts {
            values: self.values.as_bytes(),
            scales: self.scales.as_ref().map(|scales| bytemuck::cast_slice(scales.0.as_slice())),
        }
    }

    /// Row `row` as f32 into `out` (width).
    pub fn read_row(&self, row: usize, out: &mut [f32]) {
        let range = row * self.width()..(row + 1) * self.width();
        match &self.values {
            Values::F32(values) => out.copy_from_slice(&values.as_slice()[range]),
            Values::F16(values) => values.as_slice()[range].convert_to_f32_slice(out),
            Values::I8(values) => {
                let scales = &self.scales()[row * self.groups..(row + 1) * self.groups];
                let vectors = values.as_slice()[range].chunks_exact(self.group_width.max(1));
                for ((vector, out), scale) in vectors.zip(out.chunks_exact_mut(self.group_width.max(1))).zip(scales) {
                    out.iter_mut().zip(vector).for_each(|(out, &value)| *out = f32::from(value) * scale);
                }
            }
        }
    }

    /// Rows `rows` as f32, row-major.
    pub fn read_rows(&self, rows: std::ops::Range<usize>) -> Vec<f32> {
        let mut out = vec![0.0; rows.len() * self.width()];
        for (row, out) in rows.zip(out.chunks_exact_mut(self.width().max(1))) {
            self.read_row(row, out);
        }
        out
    }

    /// Bytes that numbers and scales take.
    pub fn bytes(&self) -> u64 {
        (self.values.as_bytes().len() + size_of_val(self.scales())) as u64
    }
}

/// Moves rows of `width` numbers in place, one cycle of the permutation after the other: row `i` becomes what row `order[i]` was.
fn reorder<T: Copy>(values: &mut [T], width: usize, order: &[usize]) {
    let mut is_done = vec![false; order.len()];
    let mut first: Vec<T> = Vec::with_capacity(width);
    for start in 0..order.len() {
        if is_done[start] {
            continue;
        }
        first.clear();
        first.extend_from_slice(&values[start * width..][..width]);
        let mut to = start;
        while order[to] != start {
            is_done[to] = true;
            values.copy_within(order[to] * width..(order[to] + 1) * width, to * width);
            to = order[to];
        }
        is_done[to] = true;
        values[to * width..][..width].copy_from_slice(&first);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn rows_come_back_within_the_precision_of_the_format() {
        let rows = [0.5, -2.0, 1.0, 1e-3, 300.0, 0.0, -0.25, 7.0];
        for (dtype, error) in
            [(Dtype::F32, [0.0, 0.0]), (Dtype::F16, [1e-3, 0.1]), (Dtype::I8, [2.0 / 254.0, 300.0 / 254.0])]
        {
            let mut table = Table::new(2, 2, dtype);
            table.append(&rows);
            assert_eq!((table.rows(), table.width()), (2, 4));
            let read = table.read_rows(0..2);
            for (i, (found, expected)) in read.iter().zip(&rows).enumerate() {
                assert!((found - expected).abs() <= error[i / 4], "{dtype:?} {i}: {found} for {expected}");
            }
        }
        let mut table = Table::new(2, 2, Dtype::I8);
        table.append(&rows);
        assert_eq!(table.scales(), [2.0 / 127.0, 1.0 / 127.0, 300.0 / 127.0, 7.0 / 127.0]);
        assert_eq!(table.bytes(), 8 + 16);
    }

    #[test]
    fn infinities_are_never_stored_and_zeros_stay() {
        let mut table = Table::new(1, 2, Dtype::F16);
        table.append(&[1e30, -1e30]);
        assert_eq!(table.read_rows(0..1), [65504.0, -65504.0]);
        let mut table = Table::new(1, 2, Dtype::I8);
        table.append(&[0.0, 0.0]);
        assert_eq!(table.read_rows(0..1), [0.0, 0.0]);
    }

    #[test]
    fn items_move_with_their_scales() {
        // A cycle of three, one of two, and one that stays.
        let order = [2, 4, 5, 3, 1, 0];
        for dtype in [Dtype::F32, Dtype::F16, Dtype::I8] {
            let mut table = Table::new(2, 3, dtype);
            table.append(&(0..36).map(|i| (i * i) as f32).collect::<Vec<f32>>());
            let before: Vec<Vec<f32>> = order.iter().map(|&row| table.read_rows(row..row + 1)).collect();
            table.reorder(&order);
            assert_eq!(table.read_rows(0..6), before.concat(), "{dtype}");
        }
    }

    #[test]
    fn stored_parts_open_as_the_same_table() {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::I8] {
            let mut table = Table::new(2, 3, dtype);
            table.append(&(0..24).map(|i| (i as f32).sin()).collect::<Vec<f32>>());
            let foreign = |bytes: &[u8]| -> Foreign {
                // As aligned as a mapped file.
                Arc::new(AlignedBytes(
                    bytes
                        .chunks(4)
                        .map(|c| {
                            let mut word = [0; 4];
                            word[..c.len()].copy_from_slice(c);
                            u32::from_le_bytes(word)
                        })
                        .collect(),
                    bytes.len(),
                ))
            };
            let parts = table.parts();
            let open = |scales: Option<&[u8]>| Table::foreign(2, 3, dtype, foreign(parts.values), scales.map(foreign));
            let mut opened = open(parts.scales).unwrap();
            assert_eq!(opened.read_rows(0..4), table.read_rows(0..4));
            assert_eq!(opened.bytes(), table.bytes());
            opened.append_row_of(&table, 1);
            assert_eq!(opened.read_rows(4..5), table.read_rows(1..2));
            assert!(open(if dtype == Dtype::I8 { None } else { Some(&[0; 32]) }).is_none());
            assert!(Table::foreign(2, 3, dtype, foreign(&parts.values[1..]), parts.scales.map(foreign)).is_none());
        }
    }

    struct AlignedBytes(Vec<u32>, usize);

    impl AsRef<[u8]> for AlignedBytes {
        fn as_ref(&self) -> &[u8] {
            &bytemuck::cast_slice(&self.0)[..self.1]
        }
    }
}
