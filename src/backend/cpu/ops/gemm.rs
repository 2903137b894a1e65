//! Products of matrices, by the `matrixmultiply` crate: those of encoders, of the query side and of index building. What is multiplied
//! for every pair of a query and an item has kernels of its own.

/// A matrix inside a slice: element (i, j) is `values[i * row + j * column]`.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    pub values: &'a [f32],
    /// From one row to the next.
    pub row: usize,
    /// From one column to the next.
    pub column: usize,
}

impl<'a> Matrix<'a> {
    /// Rows of `stride` numbers, which begin at `values`.
    pub fn rows(values: &'a [f32], stride: usize) -> Matrix<'a> {
        Matrix { values, row: stride, column: 1 }
    }

    /// The same with rows and columns exchanged.
    pub fn transposed(self) -> Matrix<'a> {
        Matrix { row: self.column, column: self.row, ..self }
    }

    /// Whether (rows, columns) elements are there.
    fn holds(&self, rows: usize, columns: usize) -> bool {
        rows == 0 || columns == 0 || (rows - 1) * self.row + (columns - 1) * self.column < self.values.len()
    }
}

/// `c = scale * a b + keep * c`, with a (m, k), b (k, n) and c (m, n), whose rows are `stride` apart; for `keep` 0, c is not read. Each
/// element is a sum in an order that depends on k alone.
///
/// # Panics
/// If a matrix is smaller than that.
#[allow(unsafe_code, reason = "the crate takes pointers; see the SAFETY comment")]
pub fn multiply(
    (m, k, n): (usize, usize, usize),
    scale: f32,
    a: Matrix,
    b: Matrix,
    keep: f32,
    c: &mut [f32],
    stride: usize,
) {
    assert!(a.holds(m, k) && b.holds(k, n) && Matrix::rows(c, stride).holds(m, n), "{m} x {k} x {n}");
    assert!(m <= 1 || stride >= n, "rows of c overlap");
    // SAFETY: the three slices are as long as their shapes and strides say, and `c` is borrowed mutably, so apart from the others.
    unsafe {
        matrixmultiply::sgemm(
            m,
            k,
            n,
            scale,
            a.values.as_ptr(),
            a.row as isize,
            a.column as isize,
            b.values.as_ptr(),
            b.row as isize,
            b.column as isize,
            keep,
            c.as_mut_ptr(),
            stride as isize,
            1,
        );
    }
}

/// Adds the product of `x` (rows, n_in) and `weight` (n_in, n_out) to `out` (rows, n_out), all row-major. Each element is a sum in
/// an order that depends on n_in alone, so that rows are the same bits in every batch.
///
/// # Panics
/// If `x` or `weight` is shorter than `out` requires, or `out` no number of rows.
pub fn add_product(x: &[f32], weight: &[f32], (n_in, n_out): (usize, usize), out: &mut [f32]) {
    let rows = out.len().checked_div(n_out).unwrap_or(0);
    let (x, weight) = (&x[..rows * n_in], &weight[..n_in * n_out]);
    assert_eq!(out.len(), rows * n_out, "expected whole rows of {n_out}");
    multiply((rows, n_in, n_out), 1.0, Matrix::rows(x, n_in), Matrix::rows(weight, n_out), 1.0, out, n_out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waves(n: usize, step: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * step).sin()).collect()
    }

    #[test]
    fn sums_are_right_and_rows_the_same_bits_in_every_batch() {
        for (n_in, n_out) in [(1, 1), (5, 3), (50, 200), (64, 33), (700, 17)] {
            let (x, weight) = (waves(40 * n_in, 0.7), waves(n_in * n_out, 0.3));
            let product = |rows: std::ops::Range<usize>| {
                let mut out = waves(rows.len() * n_out, 0.0);
                add_product(&x[rows.start * n_in..rows.end * n_in], &weight, (n_in, n_out), &mut out);
                out
            };
            let all = product(0..40);
            for (row, sums) in all.chunks_exact(n_out).enumerate() {
                for (column, &sum) in sums.iter().enumerate() {
                    let products =
                        (0..n_in).map(|j| f64::from(x[row * n_in + j]) * f64::from(weight[j * n_out + column]));
                    let (expected, size) = products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()));
                    assert!((f64::from(sum) - expected).abs() <= 1e-6 * size, "{sum} {expected}: {row}, {column}");
                }
            }
            for rows in [0..1, 39..40, 3..5, 1..8, 7..16, 2..35, 0..0] {
                assert_eq!(
                    product(rows.clone()),
                    all[rows.start * n_out..rows.end * n_out],
                    "{rows:?} of {n_in} x {n_out}"
                );
            }
        }
    }

    #[test]
    fn products_are_added_to_what_is_there() {
        let mut out = [10.0, 20.0];
        add_product(&[2.0], &[3.0, 4.0], (1, 2), &mut out);
        assert_eq!(out, [16.0, 28.0]);
        add_product(&[], &[], (0, 2), &mut out);
        assert_eq!(out, [16.0, 28.0]);
        add_product(&[1.0], &[], (1, 0), &mut []);
    }

    #[test]
    fn views_are_multiplied_where_they_lie() {
        // (2, 3) in rows of 4, times the transposed of (2, 3), into rows of 3.
        let a = [1.0, 2.0, 3.0, 9.0, 4.0, 5.0, 6.0];
        let b = [1.0, 0.0, 2.0, 0.0, 1.0, 1.0];
        let mut c = [10.0, f32::NAN, 7.0, 20.0, f32::NAN];
        c[1] = 30.0;
        c[4] = 40.0;
        multiply((2, 3, 2), 2.0, Matrix::rows(&a, 4), Matrix::rows(&b, 3).transposed(), 1.0, &mut c, 3);
        assert_eq!(c, [24.0, 40.0, 7.0, 52.0, 62.0]);
        let mut c = [f32::NAN; 4];
        multiply((2, 3, 2), 1.0, Matrix::rows(&a, 4), Matrix::rows(&b, 3).transposed(), 0.0, &mut c, 2);
        assert_eq!(c, [7.0, 5.0, 16.0, 11.0]);
    }

    #[test]
    #[should_panic(expected = "2 x 3 x 2")]
    fn small_matrices_are_noticed() {
        multiply((2, 3, 2), 1.0, Matrix::rows(&[0.0; 6], 4), Matrix::rows(&[0.0; 6], 2), 0.0, &mut [0.0; 4], 2);
    }

    #[test]
    #[should_panic(expected = "range end index")]
    fn short_matrices_are_noticed() {
        add_product(&[1.0; 3], &[1.0; 4], (2, 2), &mut [0.0; 4]);
    }
}
