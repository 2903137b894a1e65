//! The mutual information loss of the gate (arXiv 2407.15462, section 2.3): least where each pair's probabilities are concentrated
//! and their mean over pairs is even.

use crate::threads;

/// Added to every number whose logarithm is taken.
const EPS: f64 = 1e-6;

/// Pairs that a thread takes at a time.
const PIECE: usize = 512;

/// The loss of the probabilities (pairs, L), which are replaced by its derivatives with respect to them, times `weight`.
pub fn mutual_information(probabilities: &mut [f32], n_logits: usize, weight: f32) -> f64 {
    let n_pairs = (probabilities.len() / n_logits) as f64;
    let mut means = vec![0.0; n_logits];
    for pair in probabilities.chunks_exact(n_logits) {
        means.iter_mut().zip(pair).for_each(|(mean, &p)| *mean += f64::from(p) / n_pairs);
    }
    let scale = f64::from(weight) / n_pairs;
    let log_and_slope = |p: f64| {
        let log = (p + EPS).ln();
        (p * log, log + p / (p + EPS))
    };
    let of_means: Vec<(f64, f64)> = means.into_iter().map(log_and_slope).collect();
    let mut sums = vec![0.0; probabilities.len().div_ceil(PIECE * n_logits)];
    threads::for_each(probabilities.chunks_mut(PIECE * n_logits).zip(&mut sums), |(pairs, sum)| {
        for pair in pairs.chunks_exact_mut(n_logits) {
            for (p, (_, mean_slope)) in pair.iter_mut().zip(&of_means) {
                let (product, slope) = log_and_slope(f64::from(*p));
                *sum += product;
                *p = ((mean_slope - slope) * scale) as f32;
            }
        }
    });
    of_means.iter().map(|(product, _)| product).sum::<f64>() - sums.iter().sum::<f64>() / n_pairs
}
