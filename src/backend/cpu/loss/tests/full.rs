//! Softmax over all items.

use super::tape::{Tape, Var, compare};
use super::{cross_entropy, indices, numbers, with_threads};
use crate::backend::cpu::loss::full_softmax;
use crate::backend::loss::{DotGradients, FullDotLoss, FullSoftmax};

struct Batch {
    dim: usize,
    queries: Vec<f32>,
    items: Vec<f32>,
    targets: Vec<u32>,
    temperature: f32,
}

impl Batch {
    fn new((n, n_items, dim): (usize, usize, usize), temperature: f32) -> Batch {
        Batch {
            dim,
            queries: numbers(1, n * dim, 1.0),
            items: numbers(2, n_items * dim, 1.0),
            targets: indices(1, n, n_items),
            temperature,
        }
    }

    /// The loss, and the gradients of queries and items.
    fn run(&self) -> (f64, [Vec<f32>; 2]) {
        let Batch { dim, queries, items, targets, temperature } = self;
        let softmax = FullSoftmax { targets, temperature: *temperature };
        let loss = FullDotLoss { dim: *dim, queries, items, softmax };
        let mut out = [queries, items].map(|values| vec![7.0; values.len()]);
        let [queries, items] = &mut out;
        let value = full_softmax(&loss, &mut DotGradients { queries, items });
        (value, out)
    }
}

#[test]
fn losses_and_gradients_are_those_of_the_definition() {
    // More than a block of positions, and of items.
    for (sizes, temperature) in [((3, 1, 2), 1.0), ((5, 7, 1), 0.25), ((67, 300, 3), 2.0), ((2, 513, 20), 1.0)] {
        let batch = Batch::new(sizes, temperature);
        let tape = Tape::default();
        let (n, n_items, dim) = sizes;
        let [queries, items] = [&batch.queries, &batch.items].map(|values| tape.vars(values));
        let of_position = |position: usize| {
            let logit = |item: usize| {
                let pairs = queries[position * dim..][..dim].iter().zip(&items[item * dim..][..dim]);
                pairs.map(|(&q, &x)| q * x).sum::<Var>() * (1.0 / f64::from(temperature))
            };
            let target = batch.targets[position] as usize;
            let others = (0..n_items).filter(|&item| item != target);
            cross_entropy(&std::iter::once(target).chain(others).map(logit).collect::<Vec<_>>())
        };
        let loss = (0..n).map(of_position).sum::<Var>() * (1.0 / n as f64);
        let derivatives = tape.derivatives(loss);
        let (found, gradients) = batch.run();
        let allowed = loss.error() + 1e-12;
        assert!((found - loss.value()).abs() <= allowed, "{sizes:?}: {found} instead of {}", loss.value());
        for (mut found, vars) in gradients.into_iter().zip([&queries, &items]) {
            assert_eq!(compare(&found, &derivatives(vars)), Ok(()), "{sizes:?}");
            if n_items > 1 {
                found.iter_mut().for_each(|value| *value *= 1.01);
                assert!(compare(&found, &derivatives(vars)).is_err(), "a wrong gradient");
            }
        }
    }
}

#[test]
fn results_are_the_same_bits_for_any_number_of_threads() {
    let batch = Batch::new((200, 600, 9), 0.5);
    let results = with_threads(|| batch.run());
    assert!(results.iter().all(|result| *result == results[0]));
}

#[test]
fn a_number_that_is_none_shows_in_the_loss() {
    for bad in [f32::NAN, f32::INFINITY] {
        for array in 0..2 {
            let mut batch = Batch::new((3, 40, 5), 1.0);
            assert!(batch.run().0.is_finite());
            let array: &mut Vec<f32> = [&mut batch.queries, &mut batch.items].into_iter().nth(array).unwrap();
            array[0] = bad;
            assert!(!batch.run().0.is_finite(), "{bad}");
        }
    }
}
