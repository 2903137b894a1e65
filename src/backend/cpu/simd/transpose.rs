//! Transposition, by blocks of 8 by 8 floats.

use super::Portable;

/// Rows and columns of a block.
pub const SIDE: usize = 8;

/// Half a row of a block: what one instruction loads.
pub type HalfRow = [f32; SIDE / 2];

/// Rows of a block.
pub type Rows = [[HalfRow; 2]; SIDE];

/// The columns from `column` on of `rows`.
#[inline(always)]
pub fn block(rows: &[&[f32]; SIDE], column: usize) -> Rows {
    let mut block = [[[0.0; SIDE / 2]; 2]; SIDE];
    for i in 0..SIDE {
        let row = &rows[i][column..column + SIDE];
        block[i][0].copy_from_slice(&row[..SIDE / 2]);
        block[i][1].copy_from_slice(&row[SIDE / 2..]);
    }
    block
}

/// The transposition, by one instruction set.
pub trait Transpose {
    /// The columns of a block.
    fn transpose(&self, rows: Rows) -> [[f32; SIDE]; SIDE];
}

impl Transpose for Portable {
    #[inline(always)]
    fn transpose(&self, rows: Rows) -> [[f32; SIDE]; SIDE] {
        std::array::from_fn(|column| std::array::from_fn(|row| rows[row][column / (SIDE / 2)][column % (SIDE / 2)]))
    }
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
impl Transpose for pulp::x86::V3 {
    /// Loads half a row into each half of a register, so that no instruction has to move data between the halves of a register, which
    /// is slow. Within the halves, blocks of 4 by 4 are transposed by unpacking and shuffling.
    #[inline(always)]
    fn transpose(&self, rows: Rows) -> [[f32; SIDE]; SIDE] {
        let avx = self.avx;
        let mut columns = [[0.0; SIDE]; SIDE];
        for (half, columns) in columns.chunks_exact_mut(SIDE / 2).enumerate() {
            let mut r = [avx._mm256_setzero_ps(); SIDE / 2];
            for i in 0..SIDE / 2 {
                r[i] = avx._mm256_set_m128(pulp::cast(rows[i + SIDE / 2][half]), pulp::cast(rows[i][half]));
            }
            let low = [avx._mm256_unpacklo_ps(r[0], r[1]), avx._mm256_unpacklo_ps(r[2], r[3])];
            let high = [avx._mm256_unpackhi_ps(r[0], r[1]), avx._mm256_unpackhi_ps(r[2], r[3])];
            for (columns, [a, b]) in columns.chunks_exact_mut(2).zip([low, high]) {
                columns[0] = pulp::cast(avx._mm256_shuffle_ps::<0b01_00_01_00>(a, b));
                columns[1] = pulp::cast(avx._mm256_shuffle_ps::<0b11_10_11_10>(a, b));
            }
        }
        columns
    }
}

/// Transposes `rows`: column c becomes `out[c * stride + first..][..SIDE]`.
#[inline(always)]
pub fn transpose_rows<K: Transpose>(kernel: &K, rows: [&[f32]; SIDE], out: &mut [f32], first: usize, stride: usize) {
    let width = rows[0].len();
    let whole = width / SIDE * SIDE;
    for column in (0..whole).step_by(SIDE) {
        for (i, values) in kernel.transpose(block(&rows, column)).iter().enumerate() {
            out[(column + i) * stride + first..][..SIDE].copy_from_slice(values);
        }
    }
    for column in whole..width {
        for (i, row) in rows.iter().enumerate() {
            out[column * stride + first + i] = row[column];
        }
    }
}

/// Transposes `values` (rows, width): element r of row c of `out` (width, stride) is element c of row r.
#[inline(always)]
pub fn transpose_matrix<K: Transpose>(kernel: &K, values: &[f32], width: usize, out: &mut [f32], stride: usize) {
    let mut blocks = values.chunks_exact(SIDE * width);
    let mut first = 0;
    for block in &mut blocks {
        let rows = std::array::from_fn(|i| &block[i * width..(i + 1) * width]);
        transpose_rows(kernel, rows, out, first, stride);
        first += SIDE;
    }
    for (i, row) in blocks.remainder().chunks_exact(width).enumerate() {
        for (column, &value) in row.iter().enumerate() {
            out[column * stride + first + i] = value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_become_rows() {
        let values: Vec<f32> = (0..SIDE * 11).map(|i| i as f32).collect();
        let rows: [&[f32]; SIDE] = std::array::from_fn(|row| &values[row * 11..][..11]);
        let expected = |first: usize| -> [[f32; SIDE]; SIDE] {
            std::array::from_fn(|column| std::array::from_fn(|row| (row * 11 + first + column) as f32))
        };
        for first in [0, 3] {
            assert_eq!(Portable.transpose(block(&rows, first)), expected(first));
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            if let Some(simd) = crate::backend::cpu::simd::avx2() {
                assert_eq!(simd.transpose(block(&rows, first)), expected(first));
            }
        }
    }

    #[test]
    fn matrices_of_any_shape_are_transposed() {
        for (rows, width) in [(1, 1), (6, 32), (8, 8), (32, 5), (19, 11)] {
            let values: Vec<f32> = (0..rows * width).map(|i| i as f32).collect();
            for stride in [rows, rows + 3] {
                let mut out = vec![-1.0; width * stride];
                transpose_matrix(&Portable, &values, width, &mut out, stride);
                let expected =
                    |i: usize| if i % stride < rows { values[i % stride * width + i / stride] } else { -1.0 };
                assert_eq!(out, (0..width * stride).map(expected).collect::<Vec<_>>(), "{rows} {width} {stride}");
            }
        }
    }
}
