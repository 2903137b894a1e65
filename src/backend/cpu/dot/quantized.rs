//! Query vectors as 16-bit integers, for inner products with 8-bit items.
//!
//! Twin of `shaders/scan/quantize_queries.wgsl`, to the bit.

/// Columns of a block, which are multiplied at a time. Rows are padded with zeros to whole blocks.
pub const BLOCK: usize = 16;

/// Largest magnitude of an integer: 127 * 256, so that a GPU can split it into two signed bytes.
const LARGEST: u32 = 32_512;

/// Added to the bits of a float, this carries into the exponent exactly if its fraction exceeds that of LARGEST.
const CARRY: u32 = (1 << 24) - LARGEST * (1 << 9) - 1;

/// Least biased exponent of a largest magnitude. It makes scales at least 2^-125, so that subnormal numbers, which a GPU may flush to
/// zero, are zero on every device.
const MIN_EXPONENT: u32 = 16;

/// A matrix of integers in -32512 ..= 32512, with one scale per row: value = integer * scale, off by half a scale at most.
///
/// A scale is the least power of two for which no integer of the row exceeds 32512. So division by it is exact, and every device rounds
/// alike. It is below the largest magnitude of the row / 16256.
pub struct QuantizedQueries {
    values: Vec<i16>,
    scales: Vec<f32>,
    depth: usize,
}

impl QuantizedQueries {
    /// Rounds row-major rows of `width` finite values.
    pub fn from_rows(values: &[f32], width: usize) -> QuantizedQueries {
        let depth = width.next_multiple_of(BLOCK);
        let rows = values.chunks_exact(width.max(1));
        let mut all =
            QuantizedQueries { values: vec![0; rows.len() * depth], scales: Vec::with_capacity(rows.len()), depth };
        for (row, integers) in rows.zip(all.values.chunks_exact_mut(depth.max(1))) {
            let (scale, inverse) = scale_of(row);
            for (integer, value) in integers.iter_mut().zip(row) {
                *integer = (value * inverse).round_ties_even() as i16;
            }
            all.scales.push(scale);
        }
        all
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.scales.len()
    }

    /// (depth) integers and the scale of one row.
    pub fn row(&self, index: usize) -> (&[i16], f32) {
        (&self.values[index * self.depth..][..self.depth], self.scales[index])
    }
}

/// The scale of a row, and its inverse.
fn scale_of(row: &[f32]) -> (f32, f32) {
    let largest = row.iter().map(|value| value.abs().to_bits()).max().unwrap_or(0);
    let exponent = ((largest + CARRY) >> 23).max(MIN_EXPONENT) - 14;
    (f32::from_bits(exponent << 23), f32::from_bits((254 - exponent) << 23))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn integers(row: &[f32]) -> (Vec<i16>, f32) {
        let rows = QuantizedQueries::from_rows(row, row.len());
        let found: Vec<_> = (0..rows.len()).map(|i| (rows.row(i).0[..row.len()].to_vec(), rows.row(i).1)).collect();
        assert_eq!(found.len(), 1);
        found[0].clone()
    }

    #[test]
    fn integers_are_the_nearest_multiples_of_the_least_scale() {
        assert_eq!(integers(&[1.0, -0.5, 0.0]), (vec![16384, -8192, 0], 2f32.powi(-14)));
        // Ties go to the even neighbour.
        assert_eq!(integers(&[16384.0, 0.5, 1.5, -2.5, 0.75]), (vec![16384, 0, 2, -2, 1], 1.0));
        // The greatest number for a scale of 1, and the next one.
        assert_eq!(integers(&[-32512.0, 32511.0]), (vec![-32512, 32511], 1.0));
        let next = 32512f32.next_up();
        assert_eq!(integers(&[next, 3.0]), (vec![16256, 2], 2.0));
        assert_eq!(integers(&[65535.0]), (vec![16384], 4.0));
    }

    #[test]
    fn the_smallest_and_the_largest_numbers_are_safe() {
        assert_eq!(integers(&[0.0, -0.0]), (vec![0, 0], 2f32.powi(-125)));
        let (found, scale) = integers(&[f32::MIN_POSITIVE.next_down(), f32::from_bits(1)]);
        assert_eq!((found, scale), (vec![0, 0], 2f32.powi(-125)), "subnormal numbers are zero");
        assert_eq!(integers(&[f32::MAX, -f32::MAX]), (vec![16384, -16384], 2f32.powi(114)));
    }

    #[test]
    fn no_number_is_off_by_more_than_half_a_scale() {
        for seed in 0..1000u32 {
            let row: Vec<f32> =
                (0..7).map(|i| ((seed * 7 + i) as f32 * 0.37).sin() * (seed as f32 * 0.1 - 50.0).exp()).collect();
            let largest = row.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
            let (found, scale) = integers(&row);
            assert!(scale < largest / 16256.0 && f64::from(largest) / f64::from(scale) <= 32512.5, "{largest} {scale}");
            for (integer, value) in found.iter().zip(&row) {
                let error = f64::from(*integer) * f64::from(scale) - f64::from(*value);
                assert!(error.abs() <= 0.5 * f64::from(scale), "{value}: {integer} * {scale}");
            }
        }
    }

    #[test]
    fn rows_are_padded_with_zeros() {
        let rows = QuantizedQueries::from_rows(&(0..38).map(|i| i as f32 + 1.0).collect::<Vec<f32>>(), 19);
        assert_eq!(rows.len(), 2);
        for integers in [rows.row(0).0, rows.row(1).0] {
            assert!(
                integers.len() == 32 && integers[..19].iter().all(|&i| i > 0) && integers[19..].iter().all(|&i| i == 0)
            );
        }
        assert_eq!(QuantizedQueries::from_rows(&[], 5).len(), 0);
    }
}
