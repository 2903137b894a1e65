//! Blocks of floats with rows for columns.

/// Rows and columns of a block.
pub const BLOCK: usize = 8;

/// Half a row of a block: what is loaded at a time.
pub type Half = [f32; BLOCK / 2];

/// Rows of a block.
pub type Rows = [[Half; 2]; BLOCK];

/// The columns from `column` on of `rows`.
#[inline(always)]
pub fn block(rows: &[&[f32]; BLOCK], column: usize) -> Rows {
    let mut block = [[[0.0; BLOCK / 2]; 2]; BLOCK];
    for i in 0..BLOCK {
        let row = &rows[i][column..column + BLOCK];
        block[i][0].copy_from_slice(&row[..BLOCK / 2]);
        block[i][1].copy_from_slice(&row[BLOCK / 2..]);
    }
    block
}

/// What an instruction set does.
pub trait Transpose {
    /// The columns of a block.
    fn transpose(&self, rows: Rows) -> [[f32; BLOCK]; BLOCK];
}

/// Without instructions of its own.
pub struct Portable;

impl Transpose for Portable {
    #[inline(always)]
    fn transpose(&self, rows: Rows) -> [[f32; BLOCK]; BLOCK] {
        std::array::from_fn(|column| std::array::from_fn(|row| rows[row][column / (BLOCK / 2)][column % (BLOCK / 2)]))
    }
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
impl Transpose for pulp::x86::V3 {
    /// Halves of rows are loaded to where they belong, so that nothing has to cross from one half of a register to the other,
    /// which is what takes longest. In each half a block of four by four is turned by swaps of lanes and of pairs.
    #[inline(always)]
    fn transpose(&self, rows: Rows) -> [[f32; BLOCK]; BLOCK] {
        let avx = self.avx;
        let mut columns = [[0.0; BLOCK]; BLOCK];
        for (half, columns) in columns.chunks_exact_mut(BLOCK / 2).enumerate() {
            let mut r = [avx._mm256_setzero_ps(); BLOCK / 2];
            for i in 0..BLOCK / 2 {
                r[i] = avx._mm256_set_m128(pulp::cast(rows[i + BLOCK / 2][half]), pulp::cast(rows[i][half]));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_those_of_the_rows() {
        let values: Vec<f32> = (0..BLOCK * 11).map(|i| i as f32).collect();
        let rows: [&[f32]; BLOCK] = std::array::from_fn(|row| &values[row * 11..][..11]);
        let expected = |first: usize| -> [[f32; BLOCK]; BLOCK] {
            std::array::from_fn(|column| std::array::from_fn(|row| (row * 11 + first + column) as f32))
        };
        for first in [0, 3] {
            assert_eq!(Portable.transpose(block(&rows, first)), expected(first));
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            match pulp::Arch::new() {
                pulp::Arch::V3(simd) => assert_eq!(simd.transpose(block(&rows, first)), expected(first)),
                pulp::Arch::V4(simd) => assert_eq!((*simd).transpose(block(&rows, first)), expected(first)),
                _ => {}
            }
        }
    }
}
