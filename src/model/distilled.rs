//! Cheaper stand-ins for parts of a Mixture-of-Logits similarity, fitted to real queries when an index is built.

use crate::model::CrossGate;
use crate::ops::Linear;
use crate::tensor::Tensor;

/// What an index has learned from queries.
#[derive(Clone, Debug)]
pub struct Distilled {
    /// A small cross gate, see [`crate::search::Algorithm::Distilled`].
    pub cross: CrossGate<Tensor>,
    /// Tangents, see [`crate::search::Algorithm::Tangent`]; index folders written before they existed have none.
    pub tangents: Option<Tangents>,
}

/// Predicts, from the components of a query, the derivative of the score with respect to each logit, averaged over the best
/// items of the sample of the index. The derivative depends on how many are the best, so there is one prediction for each
/// of some numbers of them.
#[derive(Clone, Debug)]
pub struct Tangents {
    /// (R): numbers of items that the derivative was averaged over, ascending.
    pub best: Vec<usize>,
    /// (P_X, D_P): mean components of the items.
    pub mean: Tensor,
    /// F -> R * L: derivatives, of the features of a query.
    pub layer: Linear<Tensor>,
}

impl Tangents {
    /// (F): what the derivative is predicted from: the products of the components (P_Q, D_P) of a query with those of the
    /// mean item and with each other.
    pub fn features(mean: &Tensor, components: &[f32]) -> Vec<f32> {
        let width = mean.width().max(1);
        let of_mean =
            components.chunks_exact(width).flat_map(|f| mean.data().chunks_exact(width).map(move |g| dot(f, g)));
        let others = components.chunks_exact(width).enumerate();
        let of_each_other =
            others.flat_map(|(n, f)| components.chunks_exact(width).take(n + 1).map(move |other| dot(f, other)));
        of_mean.chain(of_each_other).collect()
    }

    /// F, for `p_q` components of a query and `p_x` of an item.
    pub fn n_features(p_q: usize, p_x: usize) -> usize {
        p_q * p_x + p_q * (p_q + 1) / 2
    }

    /// (L): the derivative for a query with these components (P_Q, D_P), averaged over the least number of items that is at
    /// least `best`.
    pub fn derivative(&self, components: &[f32], best: usize) -> Vec<f32> {
        let n_logits = self.layer.n_out / self.best.len().max(1);
        let place = self.best.partition_point(|&n| n < best).min(self.best.len().saturating_sub(1));
        let columns = place * n_logits..(place + 1) * n_logits;
        let mut sums = self.layer.bias.as_ref().map_or(vec![0.0; n_logits], |b| b.data()[columns.clone()].to_vec());
        let features = Tangents::features(&self.mean, components);
        for (x, row) in features.iter().zip(self.layer.weight.data().chunks_exact(self.layer.n_out.max(1))) {
            sums.iter_mut().zip(&row[columns.clone()]).for_each(|(sum, weight)| *sum += x * weight);
        }
        sums
    }
}

/// An inner product in eight partial sums, which a compiler turns into vector instructions.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a, b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    let mut sums = [0.0; 8];
    for (a, b) in a.zip(b) {
        (0..8).for_each(|i| sums[i] += a[i] * b[i]);
    }
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_products_of_any_length_are_right() {
        for n in 0..20 {
            let a: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let squares: usize = (0..n).map(|i| i * i).sum();
            assert_eq!(dot(&a, &a), squares as f32, "n = {n}");
        }
    }

    #[test]
    fn features_are_products_with_the_mean_item_and_with_each_other() {
        let mean = Tensor::trusted(vec![1, 2], vec![1.0, -1.0]);
        let features = Tangents::features(&mean, &[3.0, 5.0, 1.0, 0.0]);
        assert_eq!(features, [-2.0, 1.0, 34.0, 3.0, 1.0]);
        assert_eq!(features.len(), Tangents::n_features(2, 1));
    }

    #[test]
    fn the_number_of_items_that_is_large_enough_is_taken() {
        // P_Q = P_X = D_P = 1: two features, (f g, f f) = (6, 4). Two numbers of items, two logits.
        let weight = Tensor::trusted(vec![2, 4], vec![1.0, 0.0, 2.0, 0.0, 0.0, 1.0, 0.0, 2.0]);
        let bias = Some(Tensor::trusted(vec![4], vec![0.5, 0.25, -1.0, -2.0]));
        let mean = Tensor::trusted(vec![1, 1], vec![3.0]);
        let tangents = Tangents { best: vec![16, 32], mean, layer: Linear { weight, bias, n_in: 2, n_out: 4 } };
        for (best, expected) in [(1, [6.5, 4.25]), (16, [6.5, 4.25]), (17, [11.0, 6.0]), (999, [11.0, 6.0])] {
            assert_eq!(tangents.derivative(&[2.0], best), expected, "best = {best}");
        }
    }
}
