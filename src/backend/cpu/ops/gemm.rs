//! Products of matrices, by the `matrixmultiply` crate: those of encoders, of the query side and of index building. What is multiplied
//! for every pair of a query and an item has kernels of its own.

/// Adds the product of `x` (rows, n_in) and `weight` (n_in, n_out) to `out` (rows, n_out), all row-major. Each element is a sum in
/// an order that depends on n_in alone, so that rows are the same bits in every batch.
///
/// # Panics
/// If `x` or `weight` is shorter than `out` requires, or `out` no number of rows.
#[allow(unsafe_code, reason = "the crate takes pointers; see the SAFETY comment")]
pub fn add_product(x: &[f32], weight: &[f32], (n_in, n_out): (usize, usize), out: &mut [f32]) {
    let rows = out.len().checked_div(n_out).unwrap_or(0);
    let (x, weight) = (&x[..rows * n_in], &weight[..n_in * n_out]);
    assert_eq!(out.len(), rows * n_out, "expected whole rows of {n_out}");
    let (in_stride, out_stride) = (n_in as isize, n_out as isize);
    // SAFETY: the three slices are as long as their shapes and strides say, and `out` is borrowed mutably, so apart from the others.
    unsafe {
        matrixmultiply::sgemm(
            rows,
            n_in,
            n_out,
            1.0,
            x.as_ptr(),
            in_stride,
            1,
            weight.as_ptr(),
            out_stride,
            1,
            1.0,
            out.as_mut_ptr(),
            out_stride,
            1,
        );
    }
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
    #[should_panic(expected = "range end index")]
    fn short_matrices_are_noticed() {
        add_product(&[1.0; 3], &[1.0; 4], (2, 2), &mut [0.0; 4]);
    }
}
