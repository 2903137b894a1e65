//! An item table in tile-packed layout: `[tile][column][item in tile]`, so that a scan loads lanes of items.

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::tile::TILE;
use crate::backend::Dtype;

/// A packed table of N items with `width` values each.
pub struct Table {
    values: Values,
    width: usize,
}

enum Values {
    F32(Vec<f32>),
    F16(Vec<f16>),
}

impl Table {
    /// An empty table that rows will be appended to.
    pub fn new(width: usize, dtype: Dtype) -> Table {
        let values = match dtype {
            Dtype::F32 => Values::F32(Vec::new()),
            Dtype::F16 => Values::F16(Vec::new()),
        };
        Table { values, width }
    }

    /// Appends `rows` (n, width) as whole tiles, the last one padded with zeros.
    pub fn append(&mut self, rows: &[f32], n: usize) {
        let (width, tile_size) = (self.width, self.width * TILE);
        let mut tile = vec![0.0f32; tile_size];
        for first in (0..n).step_by(TILE) {
            tile.fill(0.0);
            for item in first..n.min(first + TILE) {
                for (column, value) in rows[item * width..(item + 1) * width].iter().enumerate() {
                    tile[column * TILE + item - first] = *value;
                }
            }
            match &mut self.values {
                Values::F32(values) => values.extend_from_slice(&tile),
                Values::F16(values) => {
                    // An infinity would turn into NaN in the next product.
                    let (low, high) = (f16::MIN.to_f32(), f16::MAX.to_f32());
                    tile.iter_mut().for_each(|value| *value = value.clamp(low, high));
                    let old = values.len();
                    values.resize(old + tile_size, f16::ZERO);
                    values[old..].convert_from_f32_slice(&tile);
                }
            }
        }
    }

    /// The values of one tile (width, TILE); `scratch` is used if they have to be converted.
    pub fn tile<'a>(&'a self, tile: usize, scratch: &'a mut Vec<f32>) -> &'a [f32] {
        let size = self.width * TILE;
        let range = tile * size..(tile + 1) * size;
        match &self.values {
            Values::F32(values) => &values[range],
            Values::F16(values) => {
                scratch.resize(size, 0.0);
                values[range].convert_to_f32_slice(scratch);
                scratch
            }
        }
    }

    /// Collects up to a tile of items from anywhere: (width, TILE), the lanes beyond `positions` unchanged.
    pub fn gather(&self, positions: &[u32], out: &mut Vec<f32>) {
        let size = self.width * TILE;
        out.resize(size, 0.0);
        for (lane, &position) in positions.iter().enumerate() {
            let first = position as usize / TILE * size + position as usize % TILE;
            let lanes = out.iter_mut().skip(lane).step_by(TILE);
            match &self.values {
                Values::F32(values) => {
                    lanes.zip(values[first..].iter().step_by(TILE)).for_each(|(to, &from)| *to = from)
                }
                Values::F16(values) => {
                    lanes.zip(values[first..].iter().step_by(TILE)).for_each(|(to, from)| *to = from.to_f32());
                }
            }
        }
    }

    /// Bytes that the values take.
    pub fn bytes(&self) -> u64 {
        match &self.values {
            Values::F32(values) => size_of_val(values.as_slice()) as u64,
            Values::F16(values) => size_of_val(values.as_slice()) as u64,
        }
    }
}
