//! Mixture-of-Logits by cooperative matrices: shapes padded to whole matrices, and the workgroup memory that they take.

use std::fmt::Write;

use half::f16;

use super::plan::TILE;
use crate::backend::gpu::device::Matrices;
use crate::model::CrossGate;
use crate::tensor::Tensor;

/// Depth of vectors that a workgroup holds at once.
const SLICE: usize = 64;

/// Values that rows in workgroup memory are padded by, as in `mol_scan_coop.wgsl`.
const PADDING: usize = 8;

/// By what the second half of a number is multiplied, as in `mol_scan_coop.wgsl`.
const LOW: f32 = 2048.0;

/// The shape of one similarity in whole matrices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Padded {
    matrices: Matrices,
    query_vectors: usize,
    /// Of a vector.
    depth: usize,
    logit_matrices: usize,
    hidden_matrices: usize,
    linear: bool,
    /// Halves that stand for a number: two for tables of f32.
    parts: usize,
}

impl Padded {
    /// `width` is that of a vector; numbers are `parts` halves.
    pub fn new<T>(
        matrices: Matrices,
        (query_vectors, width): (usize, usize),
        parts: usize,
        cross: &CrossGate<T>,
    ) -> Padded {
        let edge = matrices.edge;
        let hidden = cross.hidden.as_ref().map_or(0, |layer| layer.n_out);
        Padded {
            matrices,
            query_vectors,
            depth: width.next_multiple_of(edge),
            logit_matrices: cross.output.n_out.div_ceil(edge),
            hidden_matrices: hidden.div_ceil(edge),
            linear: cross.has_linear_part(),
            parts,
        }
    }

    pub fn edge(&self) -> usize {
        self.matrices.edge
    }

    /// Values of workgroup memory: staged halves of each part, and products as floats.
    fn memory(&self, queries: usize) -> (usize, usize) {
        let (edge, slice) = (self.edge(), self.depth.min(SLICE));
        let (pair_stride, item_stride) = (queries * TILE + PADDING, TILE + PADDING);
        let rows = self.rows(queries);
        let vectors = (rows + TILE) * (slice + PADDING);
        let pairs = (self.logit_matrices + 1) * edge * pair_stride;
        (vectors.max(pairs), (rows * item_stride).max(edge * pair_stride))
    }

    fn rows(&self, queries: usize) -> usize {
        (queries * self.query_vectors).next_multiple_of(self.edge())
    }

    /// Whether the device has room for a workgroup of so many queries.
    pub fn fits(&self, queries: usize) -> bool {
        let (halves, floats) = self.memory(queries);
        2 * self.parts * halves + 4 * floats <= self.matrices.workgroup_bytes
    }

    /// Weights of each part.
    fn n_halves(&self) -> usize {
        let tiles = 2 * self.hidden_matrices + if self.linear { self.logit_matrices } else { 0 };
        // Empty bindings are not allowed; 32-bit words are what is uploaded.
        (tiles * self.logit_matrices * self.edge() * self.edge()).max(2)
    }

    /// The constants of the kernel.
    pub fn prelude(&self, queries: usize) -> String {
        let (staged, products) = self.memory(queries);
        let counts = [
            ("QUERIES_PER_WORKGROUP", queries),
            ("ROWS", self.rows(queries)),
            ("DEPTH", self.depth),
            ("SLICE", self.depth.min(SLICE)),
            ("LOGIT_MATRICES", self.logit_matrices),
            ("HIDDEN_MATRICES", self.hidden_matrices),
            ("STRIP", self.matrices.subgroup.div_ceil(self.edge())),
            ("PARTS", self.parts),
            ("HALVES", self.n_halves()),
            ("STAGED", staged),
            ("PRODUCTS", products),
        ];
        let mut text = String::new();
        for (name, value) in counts {
            let _ = writeln!(text, "const {name}: u32 = {value}u;");
        }
        text
    }

    /// The matrices of a cross gate as the kernel reads them.
    pub fn weights(&self, cross: &CrossGate<Tensor>) -> Vec<f16> {
        let mut numbers = self.numbers(cross);
        numbers.resize(self.n_halves(), 0.0);
        let high: Vec<f16> = numbers.iter().map(|&number| rounded(number)).collect();
        if self.parts == 1 {
            return high;
        }
        let low = |(number, high): (&f32, &f16)| rounded((number - high.to_f32()) * LOW);
        let low: Vec<f16> = numbers.iter().zip(&high).map(low).collect();
        [high, low].concat()
    }

    /// The elements of all tiles.
    fn numbers(&self, cross: &CrossGate<Tensor>) -> Vec<f32> {
        let (n_logits, logits, hidden) = (cross.output.n_out, self.logit_matrices, self.hidden_matrices);
        let mut numbers = Vec::new();
        if let Some(layer) = &cross.hidden {
            let first = |unit: usize, l: usize| weight(&layer.weight, l, unit, (n_logits, layer.n_out));
            self.tiles(&mut numbers, hidden, logits, |tile, k, row, column| first(tile + row, k + column));
            let second = |l: usize, unit: usize| weight(&cross.output.weight, unit, l, (layer.n_out, n_logits));
            self.tiles(&mut numbers, hidden, logits, |tile, l, row, column| second(l + row, tile + column));
        }
        if cross.has_linear_part() {
            let linear = cross.linear.as_ref().unwrap_or(&cross.output.weight);
            let linear = |l: usize, k: usize| weight(linear, k, l, (n_logits, n_logits));
            self.tiles(&mut numbers, logits, logits, |k, l, row, column| linear(l + row, k + column));
        }
        numbers
    }

    /// Appends (outer, inner) tiles; `at` has the first index of a tile along both, then the row and the column inside.
    fn tiles(
        &self,
        numbers: &mut Vec<f32>,
        outer: usize,
        inner: usize,
        at: impl Fn(usize, usize, usize, usize) -> f32,
    ) {
        let edge = self.edge();
        for (a, b) in (0..outer).flat_map(|a| (0..inner).map(move |b| (a * edge, b * edge))) {
            let cells = (0..edge).flat_map(|row| (0..edge).map(move |column| (row, column)));
            numbers.extend(cells.map(|(row, column)| at(a, b, row, column)));
        }
    }
}

/// An element of a matrix of `shape`, 0 beside it.
fn weight(matrix: &Tensor, row: usize, column: usize, shape: (usize, usize)) -> f32 {
    if row < shape.0 && column < shape.1 { matrix.data()[row * shape.1 + column] } else { 0.0 }
}

/// An infinity would turn into NaN in the next product.
fn rounded(value: f32) -> f16 {
    f16::from_f32(value.clamp(f16::MIN.to_f32(), f16::MAX.to_f32()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::ops::Linear;

    const EIGHT: Matrices = Matrices { edge: 8, subgroup: 32, workgroup_bytes: 32 << 10, arithmetic: true };

    fn tensor(shape: [usize; 2], at: impl Fn(usize, usize) -> f32) -> Tensor {
        let at = &at;
        let data = (0..shape[0]).flat_map(|i| (0..shape[1]).map(move |j| at(i, j))).collect();
        Tensor::trusted(shape.to_vec(), data)
    }

    /// Six logits, ten hidden units.
    fn cross() -> CrossGate<Tensor> {
        let number = |first: usize| move |i: usize, j: usize| (first + 16 * i + j) as f32;
        let layer =
            |n_in, n_out, first| Linear { weight: tensor([n_in, n_out], number(first)), bias: None, n_in, n_out };
        CrossGate {
            hidden: Some(layer(6, 10, 0)),
            output: layer(10, 6, 256),
            linear: Some(tensor([6, 6], number(512))),
        }
    }

    #[test]
    fn weights_lie_in_tiles_that_are_padded_with_zeros() {
        let cross = cross();
        let halves: Vec<f32> =
            Padded::new(EIGHT, (2, 5), 1, &cross).weights(&cross).into_iter().map(f16::to_f32).collect();
        // W1: units 0..8, 8..16; W2: the same; W: one tile.
        assert_eq!(halves.len(), 5 * 64);
        let at = |tile: usize, row: usize, column: usize| halves[tile * 64 + row * 8 + column];
        assert_eq!((at(0, 3, 5), at(1, 1, 2)), (16.0 * 5.0 + 3.0, 16.0 * 2.0 + 9.0), "W1 (unit, logit)");
        assert_eq!(
            (at(2, 5, 7), at(3, 4, 1)),
            (256.0 + 16.0 * 7.0 + 5.0, 256.0 + 16.0 * 9.0 + 4.0),
            "W2 (logit, unit)"
        );
        assert_eq!(at(4, 2, 3), 512.0 + 16.0 * 3.0 + 2.0, "W (to, from)");
        assert_eq!([at(0, 0, 6), at(1, 2, 0), at(2, 6, 0), at(3, 0, 2), at(4, 6, 0), at(4, 0, 6)], [0.0; 6]);
    }

    #[test]
    fn weights_beyond_the_range_of_halves_are_clamped() {
        assert_eq!([rounded(1e6), rounded(-1e6), rounded(1.0)].map(f16::to_f32), [65504.0, -65504.0, 1.0]);
    }

    #[test]
    fn two_halves_are_nearly_an_f32() {
        let mut cross = cross();
        let exact = |i: usize, j: usize| (i + 1) as f32 / 3.0 - (j + 1) as f32 * 0.71;
        cross.hidden.as_mut().unwrap().weight = tensor([6, 10], exact);
        let padded = Padded::new(EIGHT, (2, 5), 2, &cross);
        let halves: Vec<f32> = padded.weights(&cross).into_iter().map(f16::to_f32).collect();
        assert_eq!(halves.len(), 2 * padded.n_halves());
        let number = |i: usize| halves[i] + halves[padded.n_halves() + i] / LOW;
        for (unit, l) in (0..8).flat_map(|unit| (0..6).map(move |l| (unit, l))) {
            let (found, expected) = (number(unit * 8 + l), exact(l, unit));
            assert!((found - expected).abs() <= expected.abs() * 2f32.powi(-22), "{found} for {expected}");
        }
    }

    #[test]
    fn memory_decides_how_many_queries_share_a_workgroup() {
        let small = Matrices { workgroup_bytes: 16 << 10, ..EIGHT };
        let (eight, small) = (Padded::new(EIGHT, (2, 5), 1, &cross()), Padded::new(small, (8, 64), 1, &cross()));
        assert!(eight.fits(1) && eight.fits(2));
        // One query: 8 rows and 64 items of 72 halves, 8 rows of 72 floats. Two: 16 rows of each.
        assert_eq!((small.memory(1), small.memory(2)), ((72 * 72, 8 * 72), (80 * 72, 16 * 72)));
        assert!(small.fits(1) && small.fits(2));
        let full = Matrices { workgroup_bytes: 12_671, ..small.matrices };
        assert!(!Padded { matrices: full, ..small }.fits(1));
        assert!(!Padded { parts: 2, ..small }.fits(1) && Padded { parts: 2, ..eight }.fits(1));
    }
}
