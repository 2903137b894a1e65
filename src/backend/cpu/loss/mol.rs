//! Sampled softmax over Mixture-of-Logits.
//!
//! The positives come first, since the mutual information loss needs the mean of their gates. Then the negatives, in rounds of
//! positions: scores, softmax and gradients of a position while its values are in the cache, then the gradients of the round's items.
//! At last the positives' gradients.

use std::ops::Range;

use super::by_item::ByItem;
use super::cross_gate::{CrossSums, CrossTotals, CrossWeights};
use super::mutual_information::mutual_information;
use super::pairs::{Group, MAX_GROUP, PairGradients, Pairs};
use super::rows::RowSums;
use crate::backend::loss::{MolGradients, MolLoss, MolLossValue, MolSideGradient};
use crate::config::MolConfig;
use crate::threads;

/// Positions whose gradients of weights are summed in order before they are added to the others: a number that everything is the same
/// bits for, whatever the number of threads.
const CHUNK: usize = MAX_GROUP;

/// See [`Rounds::round`].
const ROUND: usize = 1 << 22;

/// Chunks of a round, for each thread, at least.
const CHUNKS_PER_THREAD: usize = 4;

/// The losses of a batch, and their gradients.
pub fn mol_loss(loss: &MolLoss, gradients: &mut MolGradients) -> MolLossValue {
    mol_loss_in_rounds(loss, gradients, ROUND)
}

/// As [`mol_loss`], with rounds of so many numbers.
pub(super) fn mol_loss_in_rounds(loss: &MolLoss, gradients: &mut MolGradients, round: usize) -> MolLossValue {
    let n = loss.softmax.positives.len();
    let mut sides = vec![&mut gradients.queries, &mut gradients.items];
    sides.extend(&mut gradients.negative_queries);
    for side in sides {
        side.components.fill(0.0);
        side.gate.iter_mut().for_each(|gate| gate.fill(0.0));
    }
    let weights = &CrossWeights::new(&loss.cross);
    let mut totals = CrossTotals::new(weights);
    if n == 0 {
        totals.write(weights, &mut gradients.cross);
        return MolLossValue { loss: 0.0, mi_loss: 0.0 };
    }
    let n_logits = weights.n_logits;
    let positives = Pairs {
        config: loss.config,
        weights,
        queries: loss.queries,
        items: loss.items,
        indices: loss.softmax.positives,
        per_position: 1,
        dropout: loss.positive_dropout,
    };
    let negatives = Pairs {
        queries: loss.negative_queries.unwrap_or(loss.queries),
        indices: loss.softmax.negatives,
        per_position: loss.softmax.n_negatives(),
        dropout: loss.negative_dropout,
        ..positives
    };

    // Similarities, then derivatives of the loss with respect to them.
    let mut of_positives = vec![0.0; n];
    let mut probabilities = vec![0.0; n * n_logits];
    let chunks = of_positives.chunks_mut(CHUNK).zip(probabilities.chunks_mut(CHUNK * n_logits));
    threads::for_each_with(chunks.enumerate(), |group: &mut Group, (chunk, (scores, probabilities))| {
        let first = chunk * CHUNK;
        scores.copy_from_slice(group.forward(&positives, first..first + scores.len()));
        group.probabilities(&positives, probabilities);
    });
    let mi_loss = mutual_information(&mut probabilities, n_logits, loss.mi_weight);

    let softmax =
        |position: usize, positive: &mut f32, scores: &mut [f32]| loss.softmax.position(position, positive, scores);
    let of_negative_queries = gradients.negative_queries.as_mut().unwrap_or(&mut gradients.queries);
    let rounds = Rounds { pairs: &negatives, extra: None, derivatives: &softmax, round };
    let sum = rounds.run(&mut of_positives, of_negative_queries, &mut gradients.items, &mut totals);
    let known = |_: usize, positive: &mut f32, scores: &mut [f32]| {
        scores[0] = *positive;
        0.0
    };
    let extra = (loss.mi_weight != 0.0).then_some(&probabilities[..]);
    let rounds = Rounds { pairs: &positives, extra, derivatives: &known, round };
    rounds.run(&mut of_positives, &mut gradients.queries, &mut gradients.items, &mut totals);
    totals.write(weights, &mut gradients.cross);
    MolLossValue { loss: sum / n as f64, mi_loss }
}

/// Replaces the scores of a position's positive and of its pairs by the derivatives of the mean loss with respect to them, and returns
/// the loss of the position.
type Derivatives<'a> = &'a (dyn Fn(usize, &mut f32, &mut [f32]) -> f64 + Sync);

/// Forward and back through all pairs of one kind.
struct Rounds<'a> {
    pairs: &'a Pairs<'a>,
    /// (pairs, L): derivatives with respect to the gate's probabilities, beside those through the scores.
    extra: Option<&'a [f32]>,
    derivatives: Derivatives<'a>,
    /// Numbers that the gradients of a round's pairs take, if that is enough chunks for all threads.
    round: usize,
}

/// What one thread works on.
struct Chunk<'a> {
    first: usize,
    of_positives: &'a mut [f32],
    loss: f64,
    of_pairs: &'a mut [f32],
    queries: &'a mut [f32],
    query_gate: &'a mut [f32],
    cross: &'a mut CrossSums,
}

impl Rounds<'_> {
    /// Adds the gradients, and returns the sum of all positions' losses.
    fn run(
        &self,
        of_positives: &mut [f32],
        of_queries: &mut MolSideGradient,
        of_items: &mut MolSideGradient,
        totals: &mut CrossTotals,
    ) -> f64 {
        let pairs = self.pairs;
        let (n, row) = (of_positives.len(), pairs.per_position * pairs.row());
        let most = self.round / (CHUNK * row);
        let n_chunks = most.max(CHUNKS_PER_THREAD * threads::count()).min(n.div_ceil(CHUNK));
        let n_positions = n.min(n_chunks * CHUNK);

        let mut of_pairs = vec![0.0; n_positions * row];
        let mut sums: Vec<CrossSums> = (0..n_chunks).map(|_| CrossSums::new(pairs.weights)).collect();
        let mut by_item = ByItem::default();
        let mut queries = &mut of_queries.components[..];
        let mut query_gate = of_queries.gate.as_deref_mut().unwrap_or_default();
        let mut total = 0.0;
        for (round, of_positives) in of_positives.chunks_mut(n_positions).enumerate() {
            let (first, n) = (round * n_positions, of_positives.len());
            let mut rest = &mut of_pairs[..n * row];
            let chunks = of_positives.chunks_mut(CHUNK).zip(&mut sums).enumerate();
            let mut chunks: Vec<Chunk> = chunks
                .map(|(i, (of_positives, cross))| Chunk {
                    first: first + i * CHUNK,
                    loss: 0.0,
                    of_pairs: take(&mut rest, of_positives.len() * row),
                    queries: take(&mut queries, of_positives.len() * pairs.query_width()),
                    query_gate: take(&mut query_gate, of_positives.len() * pairs.weights.n_logits),
                    of_positives,
                    cross,
                })
                .collect();
            threads::for_each_with(chunks.iter_mut(), |group: &mut Group, chunk| self.work(group, chunk));
            for chunk in chunks {
                total += chunk.loss;
                totals.add(chunk.cross);
            }
            self.add_to_items(&mut by_item, first..first + n, &of_pairs, of_items);
        }
        total
    }

    fn work(&self, group: &mut Group, chunk: &mut Chunk) {
        let (pairs, n_logits) = (self.pairs, self.pairs.weights.n_logits);
        chunk.cross.clear();
        for (i, of_positives) in chunk.of_positives.chunks_mut(pairs.group()).enumerate() {
            let first = i * pairs.group();
            let positions = first..first + of_positives.len();
            let of_pairs = first * pairs.per_position..positions.end * pairs.per_position;
            let global = chunk.first + first;
            let scores = group.forward(pairs, global..global + of_positives.len());
            for (j, (positive, scores)) in
                of_positives.iter_mut().zip(scores.chunks_mut(pairs.per_position)).enumerate()
            {
                chunk.loss += (self.derivatives)(global + j, positive, scores);
            }
            let width = pairs.query_width();
            let extra = self.extra.map(|extra| {
                let before = chunk.first * pairs.per_position;
                &extra[(before + of_pairs.start) * n_logits..(before + of_pairs.end) * n_logits]
            });
            let mut out = PairGradients {
                pairs: &mut chunk.of_pairs[of_pairs.start * pairs.row()..of_pairs.end * pairs.row()],
                queries: &mut chunk.queries[positions.start * width..positions.end * width],
                query_gate: chunk
                    .query_gate
                    .get_mut(positions.start * n_logits..positions.end * n_logits)
                    .unwrap_or_default(),
                cross: chunk.cross,
            };
            group.back(pairs, extra, &mut out);
        }
    }

    /// Adds what the pairs of some positions add to the gradients of their items.
    fn add_to_items(
        &self,
        by_item: &mut ByItem,
        positions: Range<usize>,
        of_pairs: &[f32],
        of_items: &mut MolSideGradient,
    ) {
        let MolConfig { query_dot_product_groups: p_q, item_dot_product_groups: p_x, dot_product_dimension, .. } =
            *self.pairs.config;
        let (per_position, n_items) = (self.pairs.per_position, of_items.components.len() / self.pairs.item_width());
        let indices = &self.pairs.indices[positions.start * per_position..positions.end * per_position];
        by_item.sort(indices, per_position, positions.start, n_items);
        let sums = RowSums {
            coefficients: of_pairs,
            strides: [self.pairs.row(), 1, p_x],
            counts: (p_x, p_q),
            vectors: self.pairs.queries.components,
            width: dot_product_dimension,
        };
        by_item.add(sums, of_items.components, of_items.gate.as_deref_mut());
    }
}

/// Takes the first `n` of the values, or as many as there are.
fn take<'a>(values: &mut &'a mut [f32], n: usize) -> &'a mut [f32] {
    let (first, rest) = std::mem::take(values).split_at_mut_checked(n).unwrap_or_default();
    *values = rest;
    first
}
