//! Products of the small matrices of one head of one sequence, which stay in the cache: nothing is packed. Rows of the right factor
//! and of the result are whole registers.

use pulp::Simd;

/// Rows of the result that are computed together.
const ROWS: usize = 4;

/// Extents of such matrices are multiples of this, which all registers divide.
pub const PADDED: usize = 32;

/// The left factor: row i, column k.
#[derive(Clone, Copy)]
pub enum Left<'a> {
    /// `values[i * stride + k]`
    Rows(&'a [f32], usize),
    /// `values[k * stride + i]`
    Columns(&'a [f32], usize),
}

/// Adds a b to c: a is (m, depth), b (depth, n) and c (m, n), rows of b `b_stride` and rows of c `c_stride` apart. Each element is one
/// chain of sums in order of depth.
///
/// # Panics
/// If m is no multiple of 4, n none of the length of a register, or a matrix smaller than that.
#[inline(always)]
pub fn add_tile_product<S: Simd>(
    simd: S,
    (m, depth, n): (usize, usize, usize),
    a: Left,
    (b, b_stride): (&[f32], usize),
    (c, c_stride): (&mut [f32], usize),
) {
    assert!(m.is_multiple_of(ROWS) && n.is_multiple_of(S::F32_LANES), "{m} x {n}");
    for first in (0..m).step_by(ROWS) {
        let c = &mut c[first * c_stride..][..(ROWS - 1) * c_stride + n];
        match a {
            Left::Rows(values, stride) => {
                let row = |i: usize| &values[(first + i) * stride..][..depth];
                add_rows(simd, depth, FourRows([row(0), row(1), row(2), row(3)]), (b, b_stride), (c, c_stride), n);
            }
            Left::Columns(values, stride) => {
                let columns = FourColumns { values: &values[first..], stride };
                add_rows(simd, depth, columns, (b, b_stride), (c, c_stride), n);
            }
        }
    }
}

/// One column of four rows of the left factor.
trait Four: Copy {
    fn at(&self, k: usize) -> [f32; ROWS];
}

#[derive(Clone, Copy)]
struct FourRows<'a>([&'a [f32]; ROWS]);

impl Four for FourRows<'_> {
    #[inline(always)]
    fn at(&self, k: usize) -> [f32; ROWS] {
        [self.0[0][k], self.0[1][k], self.0[2][k], self.0[3][k]]
    }
}

#[derive(Clone, Copy)]
struct FourColumns<'a> {
    values: &'a [f32],
    stride: usize,
}

impl Four for FourColumns<'_> {
    #[inline(always)]
    fn at(&self, k: usize) -> [f32; ROWS] {
        let values = &self.values[k * self.stride..][..ROWS];
        [values[0], values[1], values[2], values[3]]
    }
}

#[inline(always)]
fn add_rows<S: Simd>(
    simd: S,
    depth: usize,
    a: impl Four,
    b: (&[f32], usize),
    (c, c_stride): (&mut [f32], usize),
    n: usize,
) {
    let mut column = 0;
    while column + 2 * S::F32_LANES <= n {
        add_block::<S, 2>(simd, depth, a, b, (&mut *c, c_stride), column);
        column += 2 * S::F32_LANES;
    }
    if column < n {
        add_block::<S, 1>(simd, depth, a, b, (c, c_stride), column);
    }
}

/// Four rows, `N` registers of columns.
#[inline(always)]
fn add_block<S: Simd, const N: usize>(
    simd: S,
    depth: usize,
    a: impl Four,
    (b, b_stride): (&[f32], usize),
    (c, c_stride): (&mut [f32], usize),
    column: usize,
) {
    let width = N * S::F32_LANES;
    let mut sums = [[simd.splat_f32s(0.0); N]; ROWS];
    for (row, sums) in sums.iter_mut().enumerate() {
        let (registers, _) = S::as_simd_f32s(&c[row * c_stride + column..][..width]);
        sums.copy_from_slice(registers);
    }
    for k in 0..depth {
        let (b, _) = S::as_simd_f32s(&b[k * b_stride + column..][..width]);
        // Iterators over slices only: those over arrays are not inlined, which costs the registers.
        let a = a.at(k);
        for (sums, a) in sums.iter_mut().zip(&a) {
            let a = simd.splat_f32s(*a);
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum = simd.mul_add_e_f32s(a, *b, *sum);
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        let (registers, _) = S::as_mut_simd_f32s(&mut c[row * c_stride + column..][..width]);
        registers.copy_from_slice(sums);
    }
}

/// Rows of (length, width) that lie `stride` apart from `first` on, side by side in rows of `padded` numbers, zeros after them.
pub fn copy_rows(values: &[f32], stride: usize, width: usize, length: usize, padded: usize, copy: &mut [f32]) {
    for (row, copy) in copy.chunks_exact_mut(padded).enumerate() {
        let n = if row < length { width } else { 0 };
        copy[n..].fill(0.0);
        if n > 0 {
            copy[..n].copy_from_slice(&values[row * stride..][..n]);
        }
    }
}

/// The same (length, width), transposed: rows of `padded` numbers, zeros after the first `length`.
pub fn copy_transposed(values: &[f32], stride: usize, width: usize, length: usize, padded: usize, copy: &mut [f32]) {
    for (column, copy) in copy.chunks_exact_mut(padded).take(width).enumerate() {
        copy[length..].fill(0.0);
        for (copy, row) in copy[..length].iter_mut().zip(values[column..].iter().step_by(stride)) {
            *copy = *row;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::simd;
    use pulp::WithSimd;

    struct Product<'a>(Left<'a>, &'a [f32], &'a mut [f32]);

    impl WithSimd for Product<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            add_tile_product(simd, (8, 5, 48), self.0, (self.1, 64), (self.2, 50));
        }
    }

    #[test]
    fn products_are_added_whichever_way_the_left_factor_lies() {
        let wave = |n: usize, step: f32| (0..n).map(|i| (i as f32 * step).sin()).collect::<Vec<f32>>();
        let (a, b, start) = (wave(8 * 9, 0.7), wave(5 * 64, 0.3), wave(8 * 50, 0.2));
        for (left, place) in [
            (Left::Rows(&a, 9), (|i: usize, k: usize| i * 9 + k) as fn(usize, usize) -> usize),
            (Left::Columns(&a, 9), |i, k| k * 9 + i),
        ] {
            let mut c = start.clone();
            simd::run(Product(left, &b, &mut c));
            for (at, (c, start)) in c.iter().zip(&start).enumerate() {
                let (i, j) = (at / 50, at % 50);
                let products = (0..5).map(|k| f64::from(a[place(i, k)]) * f64::from(b[k * 64 + j]));
                let expected = f64::from(*start) + if j < 48 { products.sum::<f64>() } else { 0.0 };
                assert!((f64::from(*c) - expected).abs() < 1e-6, "{i} {j}: {c} is not {expected}");
            }
        }
    }

    #[test]
    fn copies_are_padded_with_zeros() {
        let values = [1.0, 2.0, 9.0, 3.0, 4.0, 9.0];
        let mut copy = [7.0; 9];
        copy_rows(&values, 3, 2, 2, 3, &mut copy);
        assert_eq!(copy, [1.0, 2.0, 0.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0]);
        let mut copy = [7.0; 6];
        copy_transposed(&values, 3, 2, 2, 3, &mut copy);
        assert_eq!(copy, [1.0, 3.0, 0.0, 2.0, 4.0, 0.0]);
    }
}
