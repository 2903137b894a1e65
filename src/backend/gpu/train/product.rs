//! Products of matrices, in parts whose sums are added in one order.

use super::kernels::*;
use super::ops::GpuTrainingOps;
use crate::backend::gpu::device::{Buffer, grid_1d};
use crate::ops::{GradientOps, Linear};

/// 4 `SIDE` of matrix_product.wgsl.
const TILE: usize = 64;

/// Rows whose part of the gradient of a weight is one sum.
pub const CHUNK: usize = 1024;

/// Rows that one thread adds.
const ADDED: usize = 64;

/// A matrix: where it lies, and the steps from row to row and from column to column.
pub struct Matrix<'a>(pub &'a Buffer, pub usize, pub usize);

impl GpuTrainingOps {
    /// (rows, columns) = a (rows, depth) b (depth, columns), in parts of `chunk` columns of a each, which are then added in order.
    pub(super) fn product(
        &mut self,
        (rows, depth, columns): (usize, usize, usize),
        a: Matrix,
        b: Matrix,
        chunk: usize,
    ) -> Buffer {
        let parts = depth.div_ceil(chunk);
        let y = self.result(parts * rows * columns);
        let params = MatrixProductParams {
            rows: rows as u32,
            depth: depth as u32,
            columns: columns as u32,
            chunk: chunk as u32,
            a_row: a.1 as u32,
            a_column: a.2 as u32,
            b_row: b.1 as u32,
            b_column: b.2 as u32,
        };
        let grid = grid_1d((parts * rows.div_ceil(TILE) * columns.div_ceil(TILE)) as u64);
        self.recorder.dispatch(&MATRIX_PRODUCT, &params, &[a.0, b.0, &y], grid);
        if parts == 1 { y } else { self.column_sums(&y, parts, rows * columns) }
    }

    /// (width): the sums of the columns of x (rows, width).
    pub(super) fn column_sums(&mut self, x: &Buffer, rows: usize, width: usize) -> Buffer {
        let chunks = rows.div_ceil(ADDED).max(1);
        let n = chunks * width;
        let y = self.result(n);
        let params = ColumnSumsParams { n: n as u32, rows: rows as u32, width: width as u32, chunk: ADDED as u32 };
        self.element_wise(&COLUMN_SUMS, &params, &[x, &y], n);
        if chunks == 1 { y } else { self.column_sums(&y, chunks, width) }
    }

    /// (n_out, pairs): products of the weights of a layer with x (n_in, pairs).
    pub(super) fn weighted(&mut self, layer: &Linear<Buffer>, x: &Buffer, n_pairs: usize) -> Buffer {
        let weight = Matrix(&layer.weight, 1, layer.n_out);
        self.product((layer.n_out, layer.n_in, n_pairs), weight, Matrix(x, n_pairs, 1), layer.n_in)
    }

    /// (n_in, pairs): the same backwards, from derivatives (n_out, pairs).
    pub(super) fn weighted_back(&mut self, layer: &Linear<Buffer>, dy: &Buffer, n_pairs: usize) -> Buffer {
        let weight = Matrix(&layer.weight, layer.n_out, 1);
        self.product((layer.n_in, layer.n_out, n_pairs), weight, Matrix(dy, n_pairs, 1), layer.n_out)
    }

    /// Adds `part` to a sum.
    pub(super) fn add_to(&mut self, sum: &mut Buffer, part: Buffer) {
        let mut total = Some(sum.clone());
        self.add(part, &mut total);
        total.into_iter().for_each(|total| *sum = total);
    }
}
