//! The sampled softmax of one position.

use crate::backend::loss::SampledSoftmax;

/// The logit of a negative that is the positive.
const EXCLUDED: f64 = -5e4;

/// Shares below this change no sum that they are added to. They become 0, or products of them would be subnormal numbers, with
/// which some processors are slow.
const NEGLIGIBLE: f64 = 1e-20;

impl SampledSoftmax<'_> {
    /// R: negatives of a position.
    pub(super) fn n_negatives(&self) -> usize {
        self.negatives.len().checked_div(self.positives.len()).unwrap_or(0)
    }

    /// `-log softmax(logits)[0]` of a position, from the similarities of its positive and its negatives, which are replaced by the
    /// derivatives of the mean loss with respect to them.
    pub(super) fn position(&self, position: usize, positive: &mut f32, negatives: &mut [f32]) -> f64 {
        let positive_item = self.positives[position];
        let items = &self.negatives[position * negatives.len()..][..negatives.len()];
        let logit = |similarity: f32, item: u32| {
            let correction = self.correction.map_or(0.0, |correction| f64::from(correction[item as usize]));
            f64::from(similarity) / f64::from(self.temperature) - correction
        };
        let of_negative = |(&similarity, &item): (&f32, &u32)| match item == positive_item {
            true => EXCLUDED,
            false => logit(similarity, item),
        };
        let first = logit(*positive, positive_item);
        let greatest = negatives.iter().zip(items).map(of_negative).fold(first, f64::max);
        let others: f64 = negatives.iter().zip(items).map(|pair| (of_negative(pair) - greatest).exp()).sum();
        let total = others + (first - greatest).exp();

        let scale = 1.0 / (self.positives.len() as f64 * f64::from(self.temperature));
        for (similarity, item) in negatives.iter_mut().zip(items) {
            let share = (of_negative((similarity, item)) - greatest).exp() / total;
            *similarity = match *item == positive_item || share < NEGLIGIBLE {
                true => 0.0,
                false => (share * scale) as f32,
            };
        }
        *positive = (-others / total * scale) as f32;
        total.ln() - (first - greatest)
    }
}
