//! The losses of a step: of Mixture-of-Logits, with those beside the sampled softmax, and what pairs they compare.

use super::item_copies::ItemCopies;
use crate::Result;
use crate::backend::loss::{GateDropout, SampledSoftmax};
use crate::backend::{MolArrays, MolLossSettings, TrainingOps};
use crate::config::TrainConfig;
use crate::model::Mol;
use crate::ops::{DropoutSite, Ops};
use crate::train::{Masks, Node, Tape};

/// The losses of a step, before its update.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Losses {
    /// What is minimised: the softmax and the weighted auxiliary losses.
    pub total: f64,
    /// The softmax, sampled or over all items.
    pub main: f64,
    /// The mutual information loss of the gate, unweighted; 0 if its weight is.
    pub mi_loss: f64,
    /// The squared norm of uid embeddings, unweighted; 0 if its weight is.
    pub uid_embedding_l2_norm: f64,
}

/// What each position is compared with, as places among the items of a batch.
pub(super) struct Pairs {
    pub positives: Vec<u32>,
    pub negatives: Vec<u32>,
    pub correction: Option<Vec<f32>>,
}

impl Pairs {
    pub fn softmax(&self, temperature: f32) -> SampledSoftmax<'_> {
        SampledSoftmax {
            positives: &self.positives,
            negatives: &self.negatives,
            temperature,
            correction: self.correction.as_deref(),
        }
    }
}

/// The loss of Mixture-of-Logits in a step.
pub(super) struct MolStep<'a> {
    pub config: &'a TrainConfig,
    pub masks: Masks,
    /// (B): user of each sequence of positions.
    pub users: &'a [i64],
    /// (B + 1): first position of each sequence, and their number at the end.
    pub offsets: &'a [u32],
    pub n_items: usize,
}

/// Arrays with the gradient of the loss with respect to each.
pub(super) type Seeds<F> = Vec<(Node<F>, F)>;

impl MolStep<'_> {
    pub fn differentiate<B: TrainingOps<Floats: 'static, Ints: 'static>>(
        &self,
        tape: &mut Tape<B>,
        mol: &Mol<Node<B::Floats>>,
        states: &Node<B::Floats>,
        items: &Node<B::Floats>,
        pairs: &mut Pairs,
        seeds: &mut Seeds<B::Floats>,
    ) -> Result<Losses> {
        let n_positions = self.offsets.last().map_or(0, |&end| end as usize);
        let lengths = || self.offsets.windows(2).map(|pair| (pair[1] - pair[0]) as usize);
        let users = self.users.iter().zip(lengths());
        let users: Vec<i64> = users.flat_map(|(&user, length)| std::iter::repeat_n(user, length)).collect();
        // The reference calls the similarity for the positives and again for the negatives; dropout differs.
        let (projected, gate) = mol.query_projection(tape, states, n_positions);
        let components = mol.query_components(tape, projected.clone(), n_positions, Some(&users));
        let rates = &self.config.dropout;
        let is_dropped = rates.query > 0.0 || (rates.uid > 0.0 && !mol.uid_tables.is_empty());
        let negative_queries = is_dropped.then(|| {
            tape.set_pass(1);
            let (projected, gate) = match rates.query > 0.0 {
                true => mol.query_projection(tape, states, n_positions),
                false => (projected, gate.clone()),
            };
            let components = mol.query_components(tape, projected, n_positions, Some(&users));
            tape.set_pass(0);
            (components, gate)
        });
        let queries = (components, gate);
        let is_dropped = rates.item > 0.0 || rates.gate_item > 0.0;
        let (items, n_items) = match self.config.item_dropout_masks {
            masks if is_dropped && masks != Some(1) => self.copied(tape, items, mol.item_dim(), masks, pairs),
            _ => (items.clone(), self.n_items),
        };
        let parts = mol.item_side(tape, &items, n_items);
        let nodes = MolArrays {
            queries,
            negative_queries,
            items: (parts.components, parts.gate),
            cross: mol.gate_cross.map(&mut Node::clone),
        };
        let gate_dropout = |pass: u32| {
            let masks = self.masks.of_pass(pass);
            GateDropout {
                logits: masks.draw(DropoutSite::GateCross),
                probabilities: masks.draw(DropoutSite::GateSoftmax),
            }
        };
        let settings = MolLossSettings {
            config: &mol.config,
            softmax: pairs.softmax(self.config.temperature),
            positive_dropout: gate_dropout(0),
            negative_dropout: gate_dropout(1),
            mi_weight: self.config.loss_weights.mi_loss,
        };
        let (value, gradients) = tape.ops().mol_loss(&nodes.map(&mut |node| node.values().clone()), &settings)?;
        let mut arrays = Vec::new();
        gradients.map(&mut |gradient: &B::Floats| arrays.push(gradient.clone()));
        drop(gradients);
        let mut arrays = arrays.into_iter();
        nodes.map(&mut |node: &Node<B::Floats>| seeds.extend(arrays.next().map(|gradient| (node.clone(), gradient))));
        let mut losses = Losses { total: value.loss, main: value.loss, ..Losses::default() };
        if self.config.loss_weights.mi_loss != 0.0 {
            losses.mi_loss = value.mi_loss;
            losses.total += f64::from(self.config.loss_weights.mi_loss) * losses.mi_loss;
        }
        let weight = self.config.loss_weights.uid_embedding_l2_norm;
        if weight != 0.0 {
            let shares: Vec<f32> = lengths().map(|length| length as f32 / n_positions as f32).collect();
            let d_p = mol.config.dot_product_dimension;
            for (i, table) in mol.uid_tables.iter().enumerate() {
                let rows = tape.ints(&mol.uid_rows(i, self.users));
                let embeddings = tape.gather(table, d_p, &rows, self.users.len());
                let values = embeddings.values().clone();
                let (squares, gradient) = tape.ops().squared_rows(&values, d_p, &shares, weight)?;
                losses.uid_embedding_l2_norm += squares;
                seeds.push((embeddings, gradient));
            }
            losses.total += f64::from(weight) * losses.uid_embedding_l2_norm;
        }
        Ok(losses)
    }

    /// The items as often as they have dropout masks of their own, and how many that are; `pairs` then are of these.
    fn copied<B: TrainingOps<Floats: 'static, Ints: 'static>>(
        &self,
        tape: &mut Tape<B>,
        items: &Node<B::Floats>,
        dim: usize,
        masks: Option<usize>,
        pairs: &mut Pairs,
    ) -> (Node<B::Floats>, usize) {
        let copies = ItemCopies::new(&pairs.positives, &pairs.negatives, self.n_items, masks.unwrap_or(usize::MAX));
        let places = tape.ints(&copies.items);
        let copied = tape.gather(items, dim, &places, copies.items.len());
        if let Some(correction) = &mut pairs.correction {
            *correction = copies.items.iter().map(|&item| correction[item as usize]).collect();
        }
        (pairs.positives, pairs.negatives) = (copies.positives, copies.negatives);
        (copied, copies.items.len())
    }
}
