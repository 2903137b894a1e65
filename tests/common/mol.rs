//! The definition of Mixture-of-Logits (arXiv 2407.15462, section 2), one pair at a time.

use std::rc::Rc;

use rails_wgpu::backend::QueryBatch;
use rails_wgpu::config::GatingCombination;
use rails_wgpu::model::Mol;
use rails_wgpu::ops::{Activation, Linear, Ops};
use rails_wgpu::tensor::Tensor;

use super::naive::{Naive, Num, dot, exact, sum};

pub type Weights = Mol<Rc<Vec<Num>>>;

/// Component embeddings (P, D_P) of one query or item, and its gate part (L), if there is one.
pub type Side<'a> = (&'a [Num], Option<&'a [Num]>);

/// Scores (B, N) by definition; `stored` is what the index does to each number of the item side.
pub fn scores(mol: &Mol<Tensor>, items: &Tensor, batch: &QueryBatch, stored: fn(Num) -> Num) -> Vec<Vec<Num>> {
    let (n_queries, n_items) = (batch.embeddings.rows(), items.rows());
    let weights = mol.map(&mut |tensor| Naive.floats(tensor));
    let (f, q) =
        weights.query_side(&mut Naive, &Naive.floats(&batch.embeddings), batch.len(), batch.user_ids.as_deref());
    let parts = weights.item_side(&mut Naive, &Naive.floats(items), n_items);
    let store = |values: Rc<Vec<Num>>| values.iter().map(|&value| stored(value)).collect::<Vec<_>>();
    let (g, x) = (store(parts.components), parts.gate.map(store));
    let query = |i| (row(&f, n_queries, i), q.as_ref().map(|q| row(q, n_queries, i)));
    let item = |i| (row(&g, n_items, i), x.as_ref().map(|x| row(x, n_items, i)));
    (0..n_queries).map(|b| (0..n_items).map(|i| score(&weights, query(b), item(i))).collect()).collect()
}

/// Inner products (B, N) of raw embeddings by definition; `stored` as in [`scores`].
pub fn dot_scores(items: &Tensor, batch: &QueryBatch, stored: fn(Num) -> Num) -> Vec<Vec<Num>> {
    let row = |tensor: &Tensor, i: usize| tensor.row(i).iter().map(|&x| exact(x)).collect::<Vec<_>>();
    let score = |query: &[Num], i: usize| dot(query, row(items, i).into_iter().map(stored));
    let scores = |query: Vec<Num>| (0..items.rows()).map(|i| score(&query, i)).collect();
    (0..batch.embeddings.rows()).map(|b| scores(row(&batch.embeddings, b))).collect()
}

/// Rounding to f16 of a number that is known up to an error only.
pub fn halved(x: Num) -> Num {
    let round = |value: f64| f64::from(half::f16::from_f64(value));
    let value = round(x.value);
    let error = (round(x.value + x.error) - value).max(value - round(x.value - x.error));
    Num { value, error }
}

/// Row `i` of a matrix.
pub fn row(values: &[Num], rows: usize, i: usize) -> &[Num] {
    let width = values.len() / rows;
    &values[i * width..][..width]
}

/// Component logits (P_Q, P_X).
pub fn logits(mol: &Weights, f: &[Num], g: &[Num]) -> Vec<Num> {
    let d_p = mol.config.dot_product_dimension;
    let pairs = f.chunks(d_p).flat_map(|f| g.chunks(d_p).map(move |g| dot(f, g.iter().copied())));
    pairs.map(|dot| dot / exact(mol.config.temperature)).collect()
}

/// The score of one query and one item.
pub fn score(mol: &Weights, (f, q): Side, (g, x): Side) -> Num {
    mixture(mol, &logits(mol, f, g), (q, x), |x| x)
}

/// The score of a pair with these logits and one-sided gate parts; `stored` is what happens to each weight and each value that
/// the layers of the gate multiply.
pub fn mixture(
    mol: &Weights,
    z: &[Num],
    (q, x): (Option<&[Num]>, Option<&[Num]>),
    stored: impl Fn(Num) -> Num + Copy,
) -> Num {
    let store = |values: &[Num]| Rc::new(values.iter().map(|&value| stored(value)).collect::<Vec<_>>());
    let layer = |layer: &Linear<Rc<Vec<Num>>>| Linear { weight: store(&layer.weight), ..layer.clone() };
    let inputs = store(z);
    let hidden = mol.gate_cross.hidden.as_ref();
    let hidden = hidden.map(|hidden| store(&Naive.linear(&inputs, 1, &layer(hidden), Activation::Silu, None)));
    let output = layer(&mol.gate_cross.output);
    let cross = Naive.linear(hidden.as_ref().unwrap_or(&inputs), 1, &output, Activation::Identity, None);
    let cross: Vec<Num> = match &mol.gate_cross.linear {
        None => cross.to_vec(),
        Some(weights) => {
            let weights = store(weights);
            let column = |l: usize| weights.iter().skip(l).step_by(z.len()).copied();
            cross.iter().enumerate().map(|(l, &cross)| cross + dot(&inputs, column(l))).collect()
        }
    };
    let gate = |(l, &cross): (usize, &Num)| match (q, x, mol.config.gating_combination) {
        (Some(q), Some(x), GatingCombination::None) => q[l] + x[l] + cross,
        (Some(q), Some(x), _) => q[l] * x[l] + cross,
        (Some(part), None, _) | (None, Some(part), _) => part[l] + cross,
        (None, None, _) => cross,
    };
    let gates: Rc<Vec<Num>> = Rc::new(cross.iter().enumerate().map(gate).collect());
    let w: Vec<Num> = match mol.config.gating_combination {
        GatingCombination::GluSilu => gates.iter().map(|gate| gate.silu()).collect(),
        GatingCombination::GluSiluLn => {
            let normed = Naive.layer_norm(&gates, 1, gates.len(), 1e-5);
            gates.iter().zip(normed.iter()).map(|(&gate, &n)| gate / (exact(1.0) + (-n).exp())).collect()
        }
        GatingCombination::None => gates.to_vec(),
        other => panic!("no definition of {other:?} here"),
    };
    let greatest = w.iter().copied().fold(w[0], Num::max);
    let e: Vec<Num> = w.iter().map(|&w| (w - greatest).exp()).collect();
    dot(&e, z.iter().copied()) / sum(e.iter().copied())
}
