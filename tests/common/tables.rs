//! Scores of the items of host tables by definition: from the numbers that the tables hold.

use std::rc::Rc;

use rails_wgpu::backend::{Columns, QueryBatch, Scorer, Similarity};
use rails_wgpu::model::Mol;
use rails_wgpu::ops::{Activation, Ops};
use rails_wgpu::tables::{Dtype, Table, Tables};
use rails_wgpu::tensor::Tensor;

use super::mol::{Weights, logits, row, score};
use super::naive::{Naive, Num, dot, exact};

/// The numbers of a table. Those of 8-bit tables are products, which may be rounded or not.
pub fn numbers(table: &Table) -> Rc<Vec<Num>> {
    let rounding = if table.dtype() == Dtype::I8 { f64::from(f32::EPSILON) } else { 0.0 };
    let number = |x: f32| Num { value: x.into(), error: rounding * f64::from(x.abs()) };
    Rc::new(table.read_rows(0..table.rows()).into_iter().map(number).collect())
}

/// (N, P_X * D_P): the components that the tables hold or stand for.
fn components(mol: &Weights, tables: &Tables) -> Rc<Vec<Num>> {
    let host = tables.mol.as_ref().unwrap();
    let Some(norms) = &host.inverse_norms else { return numbers(host.components.as_ref().unwrap()) };
    let projected = Naive.linear(&numbers(&tables.raw), tables.len(), &mol.item.output, Activation::Identity, None);
    let norms = numbers(norms);
    let d_p = mol.config.dot_product_dimension;
    Rc::new(projected.iter().enumerate().map(|(i, &g)| g * norms[i / d_p]).collect())
}

/// (B, N): scores by a scorer of mixtures.
pub fn mol_scores(scorer: Scorer, similarity: &Similarity, tables: &Tables, batch: &QueryBatch) -> Vec<Vec<Num>> {
    let mol = match (scorer, &similarity.distilled) {
        (Scorer::Distilled, Some(distilled)) => Mol { gate_cross: distilled.cross.clone(), ..similarity.mol.clone() },
        _ => similarity.mol.clone(),
    };
    let mol = mol.map(&mut |tensor| Naive.floats(tensor));
    let (n_queries, n_items) = (batch.user_ids.len(), tables.len());
    let (f, q) = mol.query_side(&mut Naive, &Naive.floats(&batch.embeddings), &batch.user_ids);
    let g = components(&mol, tables);
    let x = tables.mol.as_ref().unwrap().gate.as_ref().map(numbers);
    let pair = |b: usize, i: usize| {
        let (f, g) = (row(&f, n_queries, b), row(&g, n_items, i));
        if scorer == Scorer::Bound {
            return bound(&logits(&mol, f, g));
        }
        let (q, x) = (q.as_ref().map(|q| row(q, n_queries, b)), x.as_ref().map(|x| row(x, n_items, i)));
        score(&mol, (f, q), (g, x))
    };
    (0..n_queries).map(|b| (0..n_items).map(|i| pair(b, i)).collect()).collect()
}

/// The largest logit and 4 L + 16 units in the last place of the largest magnitude.
fn bound(z: &[Num]) -> Num {
    let slack = (4 * z.len() + 16) as f64 * f64::from(f32::EPSILON);
    let magnitude = z.iter().map(|z| z.value.abs()).fold(0.0, f64::max);
    let greatest = z.iter().copied().fold(z[0], Num::max);
    Num { value: greatest.value + slack * magnitude, error: greatest.error * (1.0 + slack) } + exact(0.0)
}

/// (V, N): inner products of vectors with some columns of the tables.
pub fn column_scores(mol: &Mol<Tensor>, tables: &Tables, vectors: &Tensor, columns: Columns) -> Vec<Vec<Num>> {
    let weights = mol.map(&mut |tensor| Naive.floats(tensor));
    let values = match columns {
        Columns::Mean => numbers(&tables.mol.as_ref().unwrap().mean),
        Columns::Principal => numbers(tables.mol.as_ref().unwrap().principal.as_ref().unwrap()),
        Columns::Group(_) | Columns::All => components(&weights, tables),
    };
    let first = if let Columns::Group(group) = columns { group * vectors.width() } else { 0 };
    let item = |i: usize| &row(&values, tables.len(), i)[first..first + vectors.width()];
    scores_of(vectors, tables.len(), item)
}

/// (V, N): inner products of vectors with items.
pub fn scores_of<'a>(vectors: &Tensor, n_items: usize, item: impl Fn(usize) -> &'a [Num]) -> Vec<Vec<Num>> {
    let vector = |v: usize| vectors.row(v).iter().map(|&x| exact(x)).collect::<Vec<_>>();
    let scores = |v: Vec<Num>| (0..n_items).map(|i| dot(&v, item(i).iter().copied())).collect();
    (0..vectors.rows()).map(|v| scores(vector(v))).collect()
}
