//! Softmax over all items.

use super::tape::{Tape, Var, compare};
use super::{cross_entropy, indices, numbers, with_threads};
use crate::backend::cpu::loss::full_softmax;
use crate::backend::loss::{DotGradients, FullSoftmax};

struct Batch {
    dim: usize,
    queries: Vec<f32>,
    items: Vec<f32>,
    bias: Option<Vec<f32>>,
    targets: Vec<u32>,
}

impl Batch {
    fn new((n, n_items, dim): (usize, usize, usize), bias: bool) -> Batch {
        Batch {
            dim,
            queries: numbers(1, n * dim, 1.0),
            items: numbers(2, n_items * dim, 1.0),
            bias: bias.then(|| numbers(3, n_items, 1.0)),
            targets: indices(1, n, n_items),
        }
    }

    /// The loss, and the gradients of queries, items and bias.
    fn run(&self) -> (f64, [Vec<f32>; 3]) {
        let Batch { dim, queries, items, bias, targets } = self;
        let loss = FullSoftmax { dim: *dim, queries, items, bias: bias.as_deref(), targets };
        let mut out = [queries, items, bias.as_ref().unwrap_or(&Vec::new())].map(|values| vec![7.0; values.len()]);
        let [queries, items, of_bias] = &mut out;
        let of_bias = bias.is_some().then_some(&mut of_bias[..]);
        let value = full_softmax(&loss, &mut DotGradients { queries, items, bias: of_bias });
        (value, out)
    }
}

#[test]
fn losses_and_gradients_are_those_of_the_definition() {
    // More than a block of positions, and of items.
    for (sizes, bias) in [((3, 1, 2), true), ((5, 7, 1), false), ((67, 300, 3), true), ((2, 513, 20), false)] {
        let batch = Batch::new(sizes, bias);
        let tape = Tape::default();
        let (n, n_items, dim) = sizes;
        let [queries, items] = [&batch.queries, &batch.items].map(|values| tape.vars(values));
        let bias = tape.vars(batch.bias.as_deref().unwrap_or_default());
        let of_position = |position: usize| {
            let logit = |item: usize| {
                let pairs = queries[position * dim..][..dim].iter().zip(&items[item * dim..][..dim]);
                let product = pairs.map(|(&q, &x)| q * x).sum::<Var>();
                bias.get(item).map_or(product, |&bias| product + bias)
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
        for (mut found, vars) in gradients.into_iter().zip([&queries, &items, &bias]) {
            assert_eq!(compare(&found, &derivatives(vars)), Ok(()), "{sizes:?}");
            if n_items > 1 && !found.is_empty() {
                found.iter_mut().for_each(|value| *value *= 1.01);
                assert!(compare(&found, &derivatives(vars)).is_err(), "a wrong gradient");
            }
        }
    }
}

#[test]
fn results_are_the_same_bits_for_any_number_of_threads() {
    let batch = Batch::new((200, 600, 9), true);
    let results = with_threads(|| batch.run());
    assert!(results.iter().all(|result| *result == results[0]));
}

#[test]
fn a_number_that_is_none_shows_in_the_loss() {
    for bad in [f32::NAN, f32::INFINITY] {
        for array in 0..3 {
            let mut batch = Batch::new((3, 40, 5), true);
            assert!(batch.run().0.is_finite());
            let bias = batch.bias.get_or_insert_default();
            let array: &mut Vec<f32> = [&mut batch.queries, &mut batch.items, bias].into_iter().nth(array).unwrap();
            array[0] = bad;
            assert!(!batch.run().0.is_finite(), "{bad}");
        }
    }
}
