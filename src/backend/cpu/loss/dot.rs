//! Sampled softmax over inner products.

use pulp::{Simd, WithSimd};

use super::by_item::ByItem;
use super::rows::{RowSums, Term, dot};
use crate::backend::cpu::simd::run;
use crate::backend::loss::{DotGradients, DotLoss};
use crate::threads;

/// Pairs of a round: their derivatives are kept until the gradients of its items are made.
const ROUND: usize = 1 << 20;

/// Positions that a thread takes at a time.
const PIECE: usize = 32;

/// The mean loss of a batch, and its gradients.
pub fn dot_loss(loss: &DotLoss, gradients: &mut DotGradients) -> f64 {
    gradients.queries.fill(0.0);
    gradients.items.fill(0.0);
    let (n, dim, n_negatives) = (loss.softmax.positives.len(), loss.dim, loss.softmax.n_negatives());
    if n == 0 {
        return 0.0;
    }
    let n_positions = (ROUND / (n_negatives + 1)).clamp(PIECE, n.max(PIECE));
    let (mut of_positives, mut of_negatives) = (vec![0.0; n], vec![0.0; n.min(n_positions) * n_negatives]);
    let mut losses = vec![0.0; n];
    let mut by_item = ByItem::default();
    let n_items = loss.items.len() / dim;
    let rounds = gradients.queries.chunks_mut(n_positions * dim).zip(losses.chunks_mut(n_positions));
    for (round, ((queries, losses), of_positives)) in rounds.zip(of_positives.chunks_mut(n_positions)).enumerate() {
        let first = round * n_positions;
        let of_negatives = &mut of_negatives[..losses.len() * n_negatives];
        let positions = first..first + losses.len();
        let indices = &loss.softmax.negatives[positions.start * n_negatives..positions.end * n_negatives];
        let pieces = queries.chunks_mut(PIECE * dim).zip(of_negatives.chunks_mut(PIECE * n_negatives));
        let results = losses.chunks_mut(PIECE).zip(of_positives.chunks_mut(PIECE));
        let pieces = pieces.zip(results).enumerate().map(|(piece, ((queries, negatives), (losses, positives)))| {
            Task::Positions(Positions { loss, first: first + piece * PIECE, queries, negatives, losses, positives })
        });
        // Pairs are sorted by one thread while the others are at their similarities.
        let tasks: Vec<Task> = [Task::Sort(&mut by_item)].into_iter().chain(pieces).collect();
        threads::for_each(tasks.into_iter(), |task| match task {
            Task::Sort(by_item) => by_item.sort(indices, n_negatives, first, n_items),
            Task::Positions(positions) => run(positions),
        });
        by_item.add(sums(of_negatives, loss.queries, dim), gradients.items, None);
    }
    by_item.sort(loss.softmax.positives, 1, 0, n_items);
    by_item.add(sums(&of_positives, loss.queries, dim), gradients.items, None);
    losses.iter().sum::<f64>() / n as f64
}

/// Sums over pairs of single vectors.
fn sums<'a>(coefficients: &'a [f32], vectors: &'a [f32], width: usize) -> RowSums<'a> {
    RowSums { coefficients, strides: [1; 3], counts: (1, 1), vectors, width }
}

/// What threads do at the same time.
enum Task<'a> {
    /// The pairs of a round.
    Sort(&'a mut ByItem),
    Positions(Positions<'a>),
}

/// Some positions: their losses, the gradients of their queries, and the derivatives with respect to their similarities.
struct Positions<'a> {
    loss: &'a DotLoss<'a>,
    first: usize,
    queries: &'a mut [f32],
    negatives: &'a mut [f32],
    losses: &'a mut [f64],
    positives: &'a mut [f32],
}

impl WithSimd for Positions<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Positions { loss, first, queries, negatives, losses, positives } = self;
        let (dim, n_negatives) = (loss.dim, loss.softmax.n_negatives());
        let item = |index: u32| &loss.items[index as usize * dim..][..dim];
        let mut terms = Vec::new();
        for (i, (gradient, of_negatives)) in
            queries.chunks_exact_mut(dim).zip(negatives.chunks_exact_mut(n_negatives)).enumerate()
        {
            let position = first + i;
            let query = &loss.queries[position * dim..][..dim];
            let indices = &loss.softmax.negatives[position * n_negatives..][..n_negatives];
            let positive = loss.softmax.positives[position];
            positives[i] = dot(simd, query, item(positive));
            for (similarity, &index) in of_negatives.iter_mut().zip(indices) {
                *similarity = dot(simd, query, item(index));
            }
            losses[i] = loss.softmax.position(position, &mut positives[i], of_negatives);

            terms.clear();
            for (pair, &row) in (0..).zip(indices) {
                terms.push(Term { pair, row });
            }
            sums(of_negatives, loss.items, dim).add(simd, &terms, n_negatives, gradient);
            sums(&positives[i..=i], loss.items, dim).add(simd, &[Term { pair: 0, row: positive }], 1, gradient);
        }
    }
}
