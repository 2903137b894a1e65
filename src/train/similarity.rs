//! Training of a Mixture-of-Logits similarity on embeddings that stay as they are.

use std::ops::ControlFlow;

use super::items::BatchItems;
use super::losses::{MolStep, Pairs};
use super::optimiser::{TrainedParameter, adamw, gradient_norm};
use super::sites;

use crate::backend::cpu::CpuOps;
use crate::backend::{Trainable, TrainingOps};

use crate::config::{LossKind, NegativeSampling, TrainConfig};
use crate::error::Parameter;
use crate::model::{InputRange, Mol};
use crate::ops::Ops;
use crate::random::Random;
use crate::tensor::Tensor;
use crate::train::{Losses, Masks, Node, Tape};
use crate::{Error, Result};

/// Floats of the operations that train.
type Floats = <CpuOps as Ops>::Floats;

/// Embeddings of queries and items, by whichever model, and which of them belong together.
#[derive(Clone, Copy, Debug)]
pub struct EmbeddingPairs<'a> {
    /// (Q, D): raw embeddings of queries.
    pub queries: &'a Tensor,
    /// (N, D): raw embeddings of items.
    pub items: &'a Tensor,
    /// A row of the queries and a row of the items that is relevant to it, each.
    pub pairs: &'a [(u32, u32)],
}

/// Trains a similarity on the CPU, epoch by epoch: each pair is compared with [`TrainConfig::negatives`] items, drawn from all, by a
/// sampled softmax; embeddings are not changed. `tell` is called with the number of each epoch, from 1, and its mean loss, and ends the
/// training with [`ControlFlow::Break`]. The same seed makes the same bits, with any number of threads.
///
/// # Errors
/// If there is no pair, shapes or rows do not fit, a number is not finite, the similarity has uid tables, the configuration asks for
/// another loss or sampling, or as [`TrainConfig::validate`]; [`Error::Diverged`] if the loss or a gradient is not finite.
pub fn train_similarity(
    mol: &Mol<Tensor>,
    data: EmbeddingPairs,
    config: &TrainConfig,
    mut tell: impl FnMut(usize, f64) -> ControlFlow<()>,
) -> Result<Mol<Tensor>> {
    let mut trainer = Trainer::new(mol, data, config)?;
    for epoch in 1..=config.epochs {
        let mut order = data.pairs.to_vec();
        trainer.random.stream(epoch as u32, sites::ORDER).shuffle(&mut order);
        let mut sum = 0.0;
        for batch in order.chunks(config.batch_size) {
            sum += trainer.step(batch)?.total * batch.len() as f64;
        }
        if tell(epoch, sum / order.len() as f64).is_break() {
            break;
        }
    }
    trainer.mol()
}

struct Trainer<'a> {
    ops: CpuOps,
    config: &'a TrainConfig,
    random: Random,
    queries: Floats,
    items: Floats,
    n_items: usize,
    mol: &'a Mol<Tensor>,
    /// One for each tensor of the similarity, in its order.
    parameters: Vec<TrainedParameter<Floats>>,
    step: u64,
}

impl<'a> Trainer<'a> {
    fn new(mol: &'a Mol<Tensor>, data: EmbeddingPairs, config: &'a TrainConfig) -> Result<Trainer<'a>> {
        config.validate()?;
        let EmbeddingPairs { queries, items, pairs } = data;
        if config.loss != LossKind::SampledSoftmax {
            let found = format!("{:?}", config.loss);
            return Err(Error::argument(Parameter::HyperParameter("loss"), "the sampled softmax", found));
        }
        if config.sampling != NegativeSampling::Uniform {
            let found = format!("{:?}", config.sampling);
            return Err(Error::argument(Parameter::HyperParameter("sampling"), "negatives drawn uniformly", found));
        }
        if !mol.uid_tables.is_empty() {
            return Err(Error::argument(Parameter::Model, "a similarity without uid tables", "uid tables"));
        }
        let range = InputRange::new(Some(mol), mol.item_dim());
        range.check_queries(queries, None)?;
        range.check_items(&[], items, None)?;
        let (n_queries, n_items) = (queries.rows(), items.rows());
        let beyond = |&&(query, item): &&(u32, u32)| query as usize >= n_queries || item as usize >= n_items;
        if pairs.is_empty() || pairs.iter().any(|pair| beyond(&pair)) {
            let expected = format!("pairs of one of {n_queries} queries and one of {n_items} items, at least one");
            let found = pairs.iter().find(beyond).map_or("none".to_string(), |pair| format!("{pair:?}"));
            return Err(Error::argument(Parameter::Pairs, expected, found));
        }
        let mut ops = CpuOps::pooled();
        let mut tensors = Vec::new();
        mol.map(&mut |tensor| tensors.push(tensor.clone()));
        Ok(Trainer {
            queries: ops.floats(queries),
            items: ops.floats(items),
            n_items,
            parameters: tensors.iter().map(|tensor| TrainedParameter::new(&mut ops, tensor, None)).collect(),
            ops,
            config,
            random: Random::new(config.seed),
            mol,
            step: 0,
        })
    }

    fn mol(&mut self) -> Result<Mol<Tensor>> {
        let ops = &mut self.ops;
        let values = self.parameters.iter().map(|parameter| ops.read(&parameter.values));
        let mut values = values.collect::<Result<Vec<_>>>()?.into_iter();
        Ok(self.mol.map(&mut |tensor| Tensor::trusted(tensor.shape().to_vec(), values.next().unwrap_or_default())))
    }

    /// A step of AdamW on the mean loss of some pairs.
    fn step(&mut self, pairs: &[(u32, u32)]) -> Result<Losses> {
        let (losses, gradients) = self.differentiate(pairs)?;
        let step = self.step + 1;
        if !losses.total.is_finite() {
            return Err(Error::Diverged { step, what: "the loss".to_string() });
        }
        let name = |_| Error::Diverged { step, what: "a gradient".to_string() };
        let norm = gradient_norm(&mut self.ops, &gradients, name)?;
        let adamw = adamw(self.config, step, norm);
        for (parameter, gradient) in self.parameters.iter_mut().zip(&gradients) {
            let TrainedParameter { values, first_moment, second_moment } = parameter;
            self.ops.update(&adamw, Trainable { values, first_moment, second_moment }, gradient.as_ref());
        }
        self.step = step;
        Ok(losses)
    }

    fn differentiate(&mut self, pairs: &[(u32, u32)]) -> Result<(Losses, Vec<Option<Floats>>)> {
        let n = pairs.len();
        let (queries, positives): (Vec<u32>, Vec<u32>) = pairs.iter().copied().unzip();
        let mut negatives = vec![0; n * self.config.negatives];
        self.random.stream(self.step as u32, sites::NEGATIVES).fill_below(0, self.n_items as u32, &mut negatives);
        let items = BatchItems::of(&[&positives, &negatives], self.n_items);
        let masks = Masks::new(self.config.dropout, self.random, self.step as u32);
        let query_rows = self.ops.ints(&queries);
        let query_rows = self.ops.gather(&self.queries, self.mol.query_dim(), &query_rows, n);
        let item_rows = self.ops.ints(&items.ids);
        let item_rows = self.ops.gather(&self.items, self.mol.item_dim(), &item_rows, items.len());
        let mut tape = Tape::new(&mut self.ops, masks);
        let leaves: Vec<Node<Floats>> =
            self.parameters.iter().map(|parameter| tape.leaf(parameter.values.clone())).collect();
        let mut nodes = leaves.iter().cloned();
        let mol = self.mol.map(&mut |_| nodes.next().expect("one node for each tensor"));
        let (states, rows) = (tape.leaf(query_rows), tape.leaf(item_rows));
        let mut pairs =
            Pairs { positives: items.places(&positives), negatives: items.places(&negatives), correction: None };
        let offsets: Vec<u32> = (0..=n as u32).collect();
        let step = MolStep { config: self.config, masks, users: &vec![0; n], offsets: &offsets, n_items: items.len() };
        let mut seeds = Vec::new();
        let losses = step.differentiate(&mut tape, &mol, &states, &rows, &mut pairs, &mut seeds)?;
        drop((mol, states, rows));
        let mut gradients = tape.backward(seeds);
        Ok((losses, leaves.iter().map(|leaf| gradients.take(leaf)).collect()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::config::{DropoutRates, MolConfig};
    use crate::train::fresh_similarity;

    /// Queries that are, but for a rotation of their numbers, their items: the inner product does not see it.
    #[test]
    fn a_similarity_learns_what_belongs_together() {
        let (n, dim) = (40, 8);
        let stream = Random::new(3).stream(0, 0);
        let rows: Vec<f32> = (0..n * dim).map(|i| stream.normal(i as u64) as f32).collect();
        let turned: Vec<f32> = rows.chunks(dim).flat_map(|row| [&row[3..], &row[..3]].concat()).collect();
        let (items, queries) = (Tensor::trusted(vec![n, dim], rows), Tensor::trusted(vec![n, dim], turned));
        let pairs: Vec<(u32, u32)> = (0..n as u32).map(|i| (i, i)).collect();
        let data = EmbeddingPairs { queries: &queries, items: &items, pairs: &pairs };
        let config = MolConfig {
            given_components: false,
            temperature: 0.1,
            dot_product_l2_norm: true,
            gating_qi_hidden_dim: Some(8),
            ..MolConfig::of_components(2, 2, 8)
        };
        let train = TrainConfig {
            epochs: 40,
            batch_size: 10,
            negatives: 20,
            temperature: 1.0,
            learning_rate: 1e-2,
            dropout: DropoutRates::NONE,
            ..TrainConfig::default()
        };
        let fresh = fresh_similarity(&config, dim, 1).unwrap();
        let trained = || {
            let mut losses = Vec::new();
            let trained = train_similarity(&fresh, data, &train, |_, loss| {
                losses.push(loss);
                ControlFlow::Continue(())
            });
            (trained.unwrap(), losses)
        };
        let (mol, losses) = trained();
        assert!(losses.len() == 40 && losses[39] < losses[0] / 10.0, "{losses:?}");
        let again = trained();
        assert_eq!((mol.named_tensors(), losses), (again.0.named_tensors(), again.1), "the same seed, the same bits");

        let wrong = |data: EmbeddingPairs, train: &TrainConfig| {
            train_similarity(&fresh, data, train, |_, _| ControlFlow::Break(())).unwrap_err().to_string()
        };
        for (pairs, words) in
            [(&[][..], "found none"), (&[(0, 0), (1, 40)], "one of 40 items, at least one, found (1, 40)")]
        {
            let error = wrong(EmbeddingPairs { pairs, ..data }, &train);
            assert!(error.contains(words), "{words}: {error}");
        }
        let narrow = Tensor::from_rows([[1.0, 2.0]]);
        assert!(wrong(EmbeddingPairs { queries: &narrow, ..data }, &train).contains("shape (B, 8)"));
        let full = TrainConfig { loss: LossKind::FullSoftmax, ..train.clone() };
        assert!(wrong(data, &full).contains("loss: expected the sampled softmax, found FullSoftmax"));
        let popular = TrainConfig { sampling: NegativeSampling::Popularity, ..train.clone() };
        assert!(wrong(data, &popular).contains("sampling: expected negatives drawn uniformly, found Popularity"));
    }
}
