//! Rows and columns of matrices put elsewhere.

use crate::tensor::Tensor;

/// (rows, columns) with `value(row, column)` in each place.
pub(super) fn made(rows: usize, columns: usize, value: impl Fn(usize, usize) -> f32) -> Tensor {
    let data = (0..rows * columns).map(|i| value(i / columns, i % columns)).collect();
    Tensor::trusted(vec![rows, columns], data)
}

/// (n, n): ones in the diagonal.
pub(super) fn identity(n: usize) -> Tensor {
    made(n, n, |row, column| f32::from(u8::from(row == column)))
}

/// (n): a bias of zeros.
pub(super) fn zeros(n: usize) -> Tensor {
    Tensor::trusted(vec![n], vec![0.0; n])
}

/// The parts, of the same width, one below the other.
pub(super) fn stacked(parts: &[Tensor]) -> Tensor {
    let mut shape = parts.first().map(|part| part.shape().to_vec()).unwrap_or_default();
    if let Some(rows) = shape.first_mut() {
        *rows = parts.iter().map(Tensor::rows).sum();
    }
    Tensor::trusted(shape, parts.iter().flat_map(|part| part.data()).copied().collect())
}

/// (rows, columns): `matrix` with zeros behind its rows and columns.
pub(super) fn extended(matrix: &Tensor, rows: usize, columns: usize) -> Tensor {
    let (n_rows, n_columns) = (matrix.rows(), matrix.width());
    made(rows, columns, |row, column| match row < n_rows && column < n_columns {
        true => matrix.row(row)[column],
        false => 0.0,
    })
}

/// The rows in the order of `rows`; a row of zeros for `None`.
pub(super) fn rows_of(matrix: &Tensor, rows: impl IntoIterator<Item = Option<usize>>) -> Tensor {
    let zeros = vec![0.0; matrix.width()];
    let rows: Vec<&[f32]> = rows.into_iter().map(|row| row.map_or(&zeros[..], |row| matrix.row(row))).collect();
    Tensor::trusted(vec![rows.len(), matrix.width()], rows.concat())
}

/// Of a table of positions counted from the first of padded sequences, the same counted from the last, and a row of zeros.
pub(super) fn positions_from_last(table: &Tensor) -> Tensor {
    rows_of(table, (0..table.rows()).rev().map(Some).chain([None]))
}

/// The same, of positions that are counted from the first.
pub(super) fn positions_from_first(table: &Tensor) -> Tensor {
    extended(table, table.rows() + 1, table.width())
}
