//! The sampled softmax of one position.

use pulp::{Simd, WithSimd};

use crate::backend::cpu::simd::math::{Exp, map_in_place};
use crate::backend::cpu::simd::{reduce, run};
use crate::backend::loss::SampledSoftmax;

/// The logit, beside the greatest one, of a negative that is the positive.
const EXCLUDED: f32 = -5e4;

/// Exponentials below this change no sum that they are added to. They become 0, or products of them would be subnormal numbers, with
/// which some processors are slow.
const NEGLIGIBLE: f32 = 1e-20;

impl SampledSoftmax<'_> {
    /// R: negatives of a position.
    pub(super) fn n_negatives(&self) -> usize {
        self.negatives.len().checked_div(self.positives.len()).unwrap_or(0)
    }

    /// `-log softmax(logits)[0]` of a position, from the similarities of its positive and its negatives, which are replaced by the
    /// derivatives of the mean loss with respect to them. NaN if a similarity is not finite.
    pub(super) fn position(&self, position: usize, positive: &mut f32, negatives: &mut [f32]) -> f64 {
        run(Position { softmax: self, position, positive, negatives })
    }
}

struct Position<'a> {
    softmax: &'a SampledSoftmax<'a>,
    position: usize,
    positive: &'a mut f32,
    negatives: &'a mut [f32],
}

impl WithSimd for Position<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        let Position { softmax, position, positive, negatives } = self;
        let positive_item = softmax.positives[position];
        let items = &softmax.negatives[position * negatives.len()..][..negatives.len()];
        let inverse = 1.0 / f64::from(softmax.temperature);
        let logit = |similarity: f32| f64::from(similarity) * inverse;
        // NaN if a similarity is not finite: its exponential is.
        let wrong = f64::from((reduce::sum(negatives) + *positive) * 0.0);

        let correction = |item: u32| softmax.correction.map_or(0.0, |all| f64::from(all[item as usize]));
        let first = logit(*positive) - correction(positive_item);
        let greatest = match softmax.correction {
            None => first.max(logit(reduce::greatest(negatives))),
            Some(_) => {
                let logits = negatives.iter().zip(items).map(|(&value, &item)| logit(value) - correction(item));
                logits.fold(first, f64::max)
            }
        };
        // Differences from the greatest logit are what f32 is exact enough for.
        for (value, &item) in negatives.iter_mut().zip(items) {
            let below = (logit(*value) - correction(item) - greatest) as f32;
            *value = if item == positive_item { EXCLUDED } else { below };
        }
        map_in_place(simd, Exp, negatives);
        let others = sum(negatives);
        let total = others + (first - greatest).exp();

        let scale = inverse / softmax.positives.len() as f64;
        let factor = (scale / total) as f32;
        negatives.iter_mut().for_each(|value| *value *= factor);
        *positive = (-others / total * scale) as f32;
        total.ln() - (first - greatest) + wrong
    }
}

/// Sets what is negligible to 0, and adds up the others.
#[inline(always)]
fn sum(values: &mut [f32]) -> f64 {
    let relevant = |value: f32| if value < NEGLIGIBLE { 0.0 } else { value };
    let (many, rest) = values.as_chunks_mut::<8>();
    let mut sums = [0.0; 8];
    for values in many {
        for (value, sum) in values.iter_mut().zip(&mut sums) {
            *value = relevant(*value);
            *sum += f64::from(*value);
        }
    }
    for value in &mut *rest {
        *value = relevant(*value);
    }
    sums.iter().sum::<f64>() + rest.iter().map(|&value| f64::from(value)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The loss of a position, and the derivatives with respect to all similarities, by definition.
    fn definition(softmax: &SampledSoftmax, positive: f32, negatives: &[f32]) -> (f64, Vec<f64>) {
        let temperature = f64::from(softmax.temperature);
        let correction = |item: u32| softmax.correction.map_or(0.0, |all| f64::from(all[item as usize]));
        let positive_item = softmax.positives[0];
        let logit = |similarity: f32, item| f64::from(similarity) / temperature - correction(item);
        let weights = negatives.iter().zip(softmax.negatives).map(|(&similarity, &item)| match item == positive_item {
            true => 0.0,
            false => (logit(similarity, item) - logit(positive, positive_item)).exp(),
        });
        let weights: Vec<f64> = [1.0].into_iter().chain(weights).collect();
        let total: f64 = weights.iter().sum();
        let derivative = |(i, weight): (usize, &f64)| (weight / total - f64::from(i == 0)) / temperature;
        (total.ln(), weights.iter().enumerate().map(derivative).collect())
    }

    #[test]
    fn losses_and_derivatives_follow_the_definition_and_nothing_hides_what_is_not_finite() {
        let correction: Vec<f32> = (0..7).map(|i| (i as f32).sin()).collect();
        for n in [1, 7, 16, 40] {
            for correction in [None, Some(&correction[..])] {
                let items: Vec<u32> = (0..n).map(|i| i * 5 % 7).collect();
                let softmax = SampledSoftmax { positives: &[3], negatives: &items, correction, temperature: 0.05 };
                let values: Vec<f32> = (0..n).map(|i| (i as f32 * 1.7).cos()).collect();
                let (mut positive, mut negatives) = (0.6, values.clone());
                let loss = softmax.position(0, &mut positive, &mut negatives);
                let (expected_loss, expected) = definition(&softmax, 0.6, &values);
                assert!((loss - expected_loss).abs() <= 1e-6 * (1.0 + expected_loss), "{n}: {loss}, {expected_loss}");
                for (found, expected) in [positive].iter().chain(&negatives).zip(expected) {
                    let off = (f64::from(*found) - expected).abs();
                    assert!(off <= 2e-6 * expected.abs() + 1e-12, "{n}: {found}, not {expected}");
                }
                for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    for place in 0..n as usize {
                        let mut negatives = values.clone();
                        negatives[place] = wrong;
                        assert!(softmax.position(0, &mut 0.6, &mut negatives).is_nan(), "{wrong} at {place} of {n}");
                    }
                    assert!(softmax.position(0, &mut { wrong }, &mut values.clone()).is_nan(), "{wrong}");
                }
            }
        }
    }
}
