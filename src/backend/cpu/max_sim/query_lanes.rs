//! The query side of late interaction: query vectors in lanes, in the number format of a table.

use super::floats;
use super::integers::{self, OCTETS, Octet, Pair};
use crate::backend::cpu::dot::int8_tile::OCTET;
use crate::backend::cpu::dot::micro_kernel::TILE;
use crate::backend::cpu::dot::quantized::{BLOCK, QuantizedQueries};
use crate::backend::cpu::simd::aligned::AlignedFloats;
use crate::backend::cpu::simd::widen::Widen;
use crate::backend::cpu::simd::{run, run_with_kernel};
use crate::tables::{Dtype, TokenTable, Values};

use pulp::{Simd, WithSimd};

/// Query vectors in tiles of lanes. Lanes beyond the last vector are zeros.
pub enum QueryLanes {
    /// For tables of floats: (tiles, D, TILE).
    Floats(AlignedFloats),
    /// For 8-bit tables: (tiles, pairs, OCTETS) of [`Octet`], each as many bytes as eight floats; and (tiles, TILE) scales.
    Integers { lanes: AlignedFloats, scales: Vec<f32> },
}

/// The vectors of one item, and its maxima. Scratch memory of one thread.
#[derive(Default)]
pub struct MaxSimScratch {
    floats: AlignedFloats,
    pairs: Vec<Pair>,
    /// (tiles, TILE)
    maxima: AlignedFloats,
}

impl QueryLanes {
    /// The rows `vectors` (n, D), for `items` of the same width.
    pub fn new(vectors: &[f32], items: &TokenTable) -> QueryLanes {
        let width = items.vectors().width().max(1);
        let tiles = (vectors.len() / width).div_ceil(TILE);
        if items.vectors().dtype() != Dtype::I8 {
            let mut lanes = AlignedFloats::zeros(tiles * width * TILE);
            for (i, row) in vectors.chunks_exact(width).enumerate() {
                let tile = &mut lanes[i / TILE * width * TILE..];
                row.iter().enumerate().for_each(|(column, value)| tile[column * TILE + i % TILE] = *value);
            }
            return QueryLanes::Floats(lanes);
        }
        let quantized = QuantizedQueries::from_rows(vectors, width);
        let pairs = width.next_multiple_of(BLOCK) / 2;
        let mut lanes = AlignedFloats::zeros(tiles * pairs * TILE);
        let octets: &mut [[Octet; OCTETS]] = bytemuck::cast_slice_mut(&mut lanes);
        let mut scales = vec![0.0; tiles * TILE];
        for (i, scale) in scales.iter_mut().enumerate().take(quantized.len()) {
            let (row, row_scale) = quantized.row(i);
            *scale = row_scale;
            let (lane, tile) = (i % TILE, &mut octets[i / TILE * pairs..]);
            let row: &[Pair] = row.as_chunks().0;
            tile.iter_mut().zip(row).for_each(|(octets, pair)| octets[lane / OCTET][lane % OCTET] = *pair);
        }
        QueryLanes::Integers { lanes, scales }
    }

    /// The greatest inner product of each query vector with the vectors of the item at `position`.
    pub fn maxima<'a>(&self, items: &TokenTable, position: usize, scratch: &'a mut MaxSimScratch) -> &'a [f32] {
        let (table, rows) = (items.vectors(), items.rows_of(position));
        let width = table.width().max(1);
        let numbers = rows.start * width..rows.end * width;
        let MaxSimScratch { floats, pairs, maxima } = scratch;
        match (self, table.values()) {
            (QueryLanes::Floats(lanes), Values::F32(values)) => {
                maxima.resize(lanes.len() / width);
                let rows = &values.as_slice()[numbers];
                run(floats::MaxProducts { rows, depth: width, in_table: true, lanes, maxima });
            }
            (QueryLanes::Floats(lanes), Values::F16(values)) => {
                maxima.resize(lanes.len() / width);
                floats.resize(numbers.len());
                let numbers = &values.as_slice()[numbers];
                run_with_kernel!(kernel => Halves { kernel, numbers, floats });
                let rows = &floats[..];
                run(floats::MaxProducts { rows, depth: width, in_table: false, lanes, maxima });
            }
            (QueryLanes::Integers { lanes, scales }, Values::I8(values)) => {
                maxima.resize(scales.len());
                let n_pairs = width.next_multiple_of(BLOCK) / 2;
                pairs.resize(rows.len() * n_pairs, [0; 2]);
                let integers = values.as_slice()[numbers].chunks_exact(width);
                for (row, pairs) in integers.zip(pairs.chunks_exact_mut(n_pairs)) {
                    let words: &mut [i16] = pairs.as_flattened_mut();
                    let (words, padding) = words.split_at_mut(width);
                    words.iter_mut().zip(row).for_each(|(word, &byte)| *word = byte.into());
                    padding.fill(0);
                }
                let lanes: &[[Octet; OCTETS]] = bytemuck::cast_slice(lanes);
                let row_scales = &table.scales()[rows];
                integers::MaxProducts { rows: pairs, scales: row_scales, pairs: n_pairs, lanes, maxima }.run();
                maxima.iter_mut().zip(scales).for_each(|(maximum, scale)| *maximum *= scale);
            }
            // Lanes are made for the format of the table.
            _ => maxima.fill(f32::NAN),
        }
        maxima
    }
}

struct Halves<'a, K> {
    kernel: K,
    numbers: &'a [half::f16],
    floats: &'a mut [f32],
}

impl<K: Widen> WithSimd for Halves<'_, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        self.kernel.widen(self.numbers, self.floats);
    }
}
