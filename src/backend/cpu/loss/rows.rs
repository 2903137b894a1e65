//! Inner products of vectors as they lie in memory, and the way back: sums of vectors times the gradients of their products.

use pulp::Simd;

use crate::backend::cpu::simd::prefetch::prefetch_values;

/// How many terms ahead numbers are prefetched.
const AHEAD: usize = 4;

/// The inner product of two vectors of one length.
#[inline(always)]
pub fn dot<S: Simd>(simd: S, x: &[f32], y: &[f32]) -> f32 {
    let ((x, x_rest), (y, y_rest)) = (S::as_simd_f32s(x), S::as_simd_f32s(y));
    let mut sums = [simd.splat_f32s(0.0); 2];
    let ((x, x_last), (y, y_last)) = (x.as_chunks::<2>(), y.as_chunks::<2>());
    for (x, y) in x.iter().zip(y) {
        sums[0] = simd.mul_add_e_f32s(x[0], y[0], sums[0]);
        sums[1] = simd.mul_add_e_f32s(x[1], y[1], sums[1]);
    }
    for (&x, &y) in x_last.iter().zip(y_last) {
        sums[0] = simd.mul_add_e_f32s(x, y, sums[0]);
    }
    if !x_rest.is_empty() {
        sums[1] = simd.mul_add_e_f32s(simd.partial_load_f32s(x_rest), simd.partial_load_f32s(y_rest), sums[1]);
    }
    simd.reduce_sum_f32s(simd.add_f32s(sums[0], sums[1]))
}

/// A pair, and the row of its vectors on the other side.
#[derive(Clone, Copy, Debug, Default)]
pub struct Term {
    /// Which row of the coefficients.
    pub pair: u32,
    /// Which row of the vectors.
    pub row: u32,
}

/// For pairs of vectors x_i and y_j, with the gradients c_ij of their inner products: the gradients of x_i, which are
/// `sum over pairs and j of c_ij y_j`.
#[derive(Clone, Copy)]
pub struct RowSums<'a> {
    /// (pairs, ..): c.
    pub coefficients: &'a [f32],
    /// Distances of pairs, of i and of j in the coefficients.
    pub strides: [usize; 3],
    /// I and J.
    pub counts: (usize, usize),
    /// (rows, J * width): y.
    pub vectors: &'a [f32],
    /// Width of each vector.
    pub width: usize,
}

impl RowSums<'_> {
    /// Adds the first `n` terms to the `sums` (I, width): one chain of fused multiply-adds in order of terms and j. Those behind are
    /// what will be needed next.
    #[inline(always)]
    pub fn add<S: Simd>(&self, simd: S, terms: &[Term], n: usize, sums: &mut [f32]) {
        let lanes = S::F32_LANES;
        // Sums and vectors stay in registers; with as many sums as possible, vectors are loaded once.
        let many = S::REGISTER_COUNT >= 32 && self.counts.0 < 8;
        let mut column = 0;
        while column < self.width {
            let left = self.width - column;
            let registers = match if many { left.div_ceil(lanes) } else { left / lanes } {
                4.. if many => self.columns::<S, 4>(simd, (terms, n), column, sums),
                3 if many => self.columns::<S, 3>(simd, (terms, n), column, sums),
                2.. => self.columns::<S, 2>(simd, (terms, n), column, sums),
                _ => self.columns::<S, 1>(simd, (terms, n), column, sums),
            };
            column += registers * lanes;
        }
    }

    /// C registers of all sums; returns C.
    #[inline(always)]
    fn columns<S: Simd, const C: usize>(
        &self,
        simd: S,
        terms: (&[Term], usize),
        column: usize,
        sums: &mut [f32],
    ) -> usize {
        let mut i = 0;
        while i < self.counts.0 {
            match self.counts.0 - i {
                8.. if C == 2 && S::REGISTER_COUNT >= 32 => i += self.block::<S, 8, C>(simd, terms, (i, column), sums),
                4.. => i += self.block::<S, 4, C>(simd, terms, (i, column), sums),
                2.. => i += self.block::<S, 2, C>(simd, terms, (i, column), sums),
                _ => i += self.block::<S, 1, C>(simd, terms, (i, column), sums),
            }
        }
        C
    }

    /// C registers of I sums; returns I.
    #[inline(always)]
    fn block<S: Simd, const I: usize, const C: usize>(
        &self,
        simd: S,
        (terms, n): (&[Term], usize),
        (first, column): (usize, usize),
        sums: &mut [f32],
    ) -> usize {
        let (pair_stride, n_vectors) = (self.strides[0], self.counts.1);
        let columns = column..self.width.min(column + C * S::F32_LANES);
        let mut registers = [[simd.splat_f32s(0.0); C]; I];
        for (i, registers) in registers.iter_mut().enumerate() {
            *registers = load::<S, C>(simd, &sums[(first + i) * self.width..][columns.clone()]);
        }
        for (t, term) in terms[..n].iter().enumerate() {
            if first == 0 && column == 0 && n < terms.len() {
                self.prefetch(terms.get(t + AHEAD));
            }
            let coefficients = &self.coefficients[term.pair as usize * pair_stride..];
            let vectors = &self.vectors[term.row as usize * n_vectors * self.width..][..n_vectors * self.width];
            for j in 0..n_vectors {
                let vector = load::<S, C>(simd, &vectors[j * self.width..][columns.clone()]);
                for (i, registers) in registers.iter_mut().enumerate() {
                    let factor = simd.splat_f32s(coefficients[(first + i) * self.strides[1] + j * self.strides[2]]);
                    for (sum, &values) in registers.iter_mut().zip(&vector) {
                        *sum = simd.mul_add_e_f32s(factor, values, *sum);
                    }
                }
            }
        }
        for (i, registers) in registers.into_iter().enumerate() {
            store::<S, C>(simd, registers, &mut sums[(first + i) * self.width..][columns.clone()]);
        }
        I
    }

    #[inline(always)]
    fn prefetch(&self, term: Option<&Term>) {
        if let Some(term) = term {
            let (pair, width) = (self.strides[0], self.counts.1 * self.width);
            prefetch_values(&self.coefficients[term.pair as usize * pair..][..pair]);
            prefetch_values(&self.vectors[term.row as usize * width..][..width]);
        }
    }
}

/// C registers, of which the last may be filled by fewer values.
#[inline(always)]
fn load<S: Simd, const C: usize>(simd: S, values: &[f32]) -> [S::f32s; C] {
    let (whole, rest) = S::as_simd_f32s(values);
    let mut registers = [simd.splat_f32s(0.0); C];
    if rest.is_empty() {
        registers.copy_from_slice(&whole[..C]);
    } else {
        registers[..C - 1].copy_from_slice(&whole[..C - 1]);
        registers[C - 1] = simd.partial_load_f32s(rest);
    }
    registers
}

/// Stores them.
#[inline(always)]
fn store<S: Simd, const C: usize>(simd: S, registers: [S::f32s; C], values: &mut [f32]) {
    let (whole, rest) = S::as_mut_simd_f32s(values);
    if rest.is_empty() {
        whole[..C].copy_from_slice(&registers);
    } else {
        whole[..C - 1].copy_from_slice(&registers[..C - 1]);
        simd.partial_store_f32s(rest, registers[C - 1]);
    }
}
