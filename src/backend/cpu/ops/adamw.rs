//! Steps of AdamW.

use pulp::{Simd, WithSimd};

use crate::backend::cpu::simd;
use crate::backend::{AdamW, AdamWFactors};
use crate::threads;

/// Elements that a thread takes at a time.
const PIECE: usize = 1 << 13;

/// Changes parameters and their moments, all of one length.
pub fn update(adamw: &AdamW, [values, first, second]: [&mut [f32]; 3], gradient: Option<&[f32]>) {
    let (factors, gradient_scale) = (adamw.factors(), adamw.gradient_scale);
    let pieces = values.chunks_mut(PIECE).zip(first.chunks_mut(PIECE)).zip(second.chunks_mut(PIECE));
    threads::for_each(pieces.enumerate(), |(piece, ((values, first), second))| {
        let gradient = gradient.map(|gradient| &gradient[piece * PIECE..][..values.len()]);
        simd::run(Update { factors, gradient_scale, values, first, second, gradient });
    });
}

/// Changes the rows of a table: row `rows[i]` has row i of `gradient`, others none.
pub fn update_rows(
    adamw: &AdamW,
    [values, first, second]: [&mut [f32]; 3],
    width: usize,
    rows: &[u32],
    gradient: &[f32],
    lazy: bool,
) {
    let (factors, gradient_scale) = (adamw.factors(), adamw.gradient_scale);
    let piece_rows = (PIECE / width.max(1)).max(1);
    let len = (piece_rows * width).max(1);
    let pieces = values.chunks_mut(len).zip(first.chunks_mut(len)).zip(second.chunks_mut(len));
    threads::for_each(pieces.enumerate(), |(piece, ((values, first), second))| {
        let first_row = (piece * piece_rows) as u32;
        let mut next = rows.partition_point(|&row| row < first_row);
        let cells = values.chunks_mut(width).zip(first.chunks_mut(width)).zip(second.chunks_mut(width));
        for (row, ((values, first), second)) in (first_row..).zip(cells) {
            let has_gradient = rows.get(next) == Some(&row);
            let gradient = has_gradient.then(|| &gradient[next * width..][..width]);
            next += usize::from(has_gradient);
            if has_gradient || !lazy {
                simd::run(Update { factors, gradient_scale, values, first, second, gradient });
            }
        }
    });
}

struct Update<'a> {
    factors: AdamWFactors,
    gradient_scale: f32,
    values: &'a mut [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
    gradient: Option<&'a [f32]>,
}

impl WithSimd for Update<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let AdamWFactors { keep, step_size, inverse_root } = self.factors;
        let Update { gradient_scale, values, first, second, gradient, .. } = self;
        for i in 0..values.len() {
            let gradient = gradient.map_or(0.0, |gradient| gradient[i]) * gradient_scale;
            first[i] += (1.0 - AdamW::BETA_1) * (gradient - first[i]);
            second[i] = AdamW::BETA_2 * second[i] + (1.0 - AdamW::BETA_2) * gradient * gradient;
            let root = second[i].sqrt() * inverse_root + AdamW::EPS;
            values[i] = values[i] * keep - step_size * first[i] / root;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u64) -> AdamW {
        AdamW { step, learning_rate: 0.1, weight_decay: 0.5, gradient_scale: 1.0 }
    }

    /// By definition, in f64.
    fn expected(gradients: &[f64], mut value: f64) -> f64 {
        let (mut first, mut second) = (0.0, 0.0);
        for (gradient, t) in gradients.iter().zip(1..) {
            first = 0.9 * first + 0.1 * gradient;
            second = 0.98 * second + 0.02 * gradient * gradient;
            value -= 0.1 * 0.5 * value;
            let root = (second / (1.0 - 0.98f64.powi(t))).sqrt() + 1e-8;
            value -= 0.1 * first / (1.0 - 0.9f64.powi(t)) / root;
        }
        value
    }

    #[test]
    fn steps_are_those_of_the_definition() {
        let gradients = [3.0, -1.0, 0.0, 0.25];
        let n = 20_001;
        let (mut values, mut first, mut second) = (vec![2.0; n], vec![0.0; n], vec![0.0; n]);
        for (gradient, t) in gradients.iter().zip(1..) {
            let gradient = vec![*gradient as f32; n];
            update(&step(t), [&mut values, &mut first, &mut second], (t != 3).then_some(&gradient));
        }
        let right = expected(&gradients, 2.0);
        assert!(values.iter().all(|&value| (f64::from(value) - right).abs() < 1e-6), "{} {right}", values[0]);
        let clipped = AdamW { gradient_scale: 0.5, ..step(1) };
        let mut one = [[2.0], [0.0], [0.0]];
        let [values, first, second] = &mut one;
        update(&clipped, [values, first, second], Some(&[3.0]));
        assert!((one[1][0] - 0.15).abs() < 1e-7 && (one[2][0] - 0.02 * 2.25).abs() < 1e-7);
    }

    #[test]
    fn rows_without_a_gradient_decay_unless_the_update_is_lazy() {
        for lazy in [false, true] {
            // Rows of more than a piece.
            let (rows, width) = (5000, 3);
            let mut table = [vec![1.0; rows * width], vec![0.5; rows * width], vec![0.25; rows * width]];
            let (mut whole, before) = (table.clone(), table.clone());
            let [values, first, second] = &mut table;
            update_rows(&step(4), [values, first, second], width, &[7, 4999], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], lazy);
            let mut gradient = vec![0.0; rows * width];
            gradient[21..24].copy_from_slice(&[1.0, 2.0, 3.0]);
            gradient[4999 * 3..].copy_from_slice(&[4.0, 5.0, 6.0]);
            let [values, first, second] = &mut whole;
            update(&step(4), [values, first, second], Some(&gradient));
            for (part, (whole, before)) in table.iter().zip(whole.iter().zip(&before)) {
                for (row, part) in part.chunks(width).enumerate() {
                    let expected = if lazy && ![7, 4999].contains(&row) { before } else { whole };
                    assert_eq!(part, &expected[row * width..][..width], "row {row}, lazy: {lazy}");
                }
            }
        }
    }
}
