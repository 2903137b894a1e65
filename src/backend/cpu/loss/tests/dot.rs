//! Sampled softmax over inner products.

use super::tape::{Tape, Var, compare};
use super::{cross_entropy, indices, numbers, with_threads};
use crate::backend::cpu::loss::dot_loss;
use crate::backend::loss::{DotGradients, DotLoss, SampledSoftmax};

struct Batch {
    dim: usize,
    queries: Vec<f32>,
    items: Vec<f32>,
    positives: Vec<u32>,
    negatives: Vec<u32>,
    correction: Option<Vec<f32>>,
}

impl Batch {
    fn new(dim: usize, (n, r, m): (usize, usize, usize), correction: bool) -> Batch {
        let scale = 1.0 / (dim as f64).sqrt();
        let positives = indices(1, n, m);
        let mut negatives = indices(2, n * r, m);
        negatives[0] = positives[0];
        let correction = correction.then(|| numbers(3, m, 1.0));
        Batch {
            dim,
            queries: numbers(1, n * dim, scale),
            items: numbers(2, m * dim, scale),
            positives,
            negatives,
            correction,
        }
    }

    fn run(&self) -> (f64, Vec<f32>, Vec<f32>) {
        let softmax = SampledSoftmax {
            positives: &self.positives,
            negatives: &self.negatives,
            temperature: 0.2,
            correction: self.correction.as_deref(),
        };
        let (mut queries, mut items) = (vec![7.0; self.queries.len()], vec![7.0; self.items.len()]);
        let mut gradients = DotGradients { queries: &mut queries, items: &mut items };
        let loss = DotLoss { dim: self.dim, queries: &self.queries, items: &self.items, softmax };
        (dot_loss(&loss, &mut gradients), queries, items)
    }
}

#[test]
fn losses_and_gradients_are_those_of_the_definition() {
    for (dim, sizes, correction) in
        [(1, (8, 1, 5), false), (5, (4, 3, 7), true), (50, (35, 7, 20), false), (64, (2, 40, 30), true)]
    {
        let batch = Batch::new(dim, sizes, correction);
        let tape = Tape::default();
        let (queries, items) = (tape.vars(&batch.queries), tape.vars(&batch.items));
        let (n, r, _) = sizes;
        let of_position = |position: usize| {
            let positive = batch.positives[position];
            let logit = |item: u32| {
                let pairs = queries[position * dim..][..dim].iter().zip(&items[item as usize * dim..][..dim]);
                let correction = batch.correction.as_ref().map_or(0.0, |correction| correction[item as usize]);
                pairs.map(|(&q, &x)| q * x).sum::<Var>() * (1.0 / f64::from(0.2f32)) + -f64::from(correction)
            };
            let negatives = batch.negatives[position * r..][..r].iter();
            let negatives = negatives.map(|&item| if item == positive { tape.var(-5e4) } else { logit(item) });
            cross_entropy(&std::iter::once(logit(positive)).chain(negatives).collect::<Vec<_>>())
        };
        let loss = (0..n).map(of_position).sum::<Var>() * (1.0 / n as f64);
        let derivatives = tape.derivatives(loss);
        let (found, of_queries, of_items) = batch.run();
        assert!((found - loss.value()).abs() <= loss.error(), "{dim} {sizes:?}: {found} instead of {}", loss.value());
        for (mut found, vars) in [(of_queries, &queries), (of_items, &items)] {
            assert_eq!(compare(&found, &derivatives(vars)), Ok(()), "{dim} {sizes:?}");
            found.iter_mut().for_each(|value| *value *= 1.01);
            assert!(compare(&found, &derivatives(vars)).is_err(), "a wrong gradient");
        }
    }
}

#[test]
fn results_are_the_same_bits_for_any_number_of_threads() {
    let batch = Batch::new(20, (200, 9, 30), false);
    let results = with_threads(|| batch.run());
    assert!(results.iter().all(|result| *result == results[0]));
}
