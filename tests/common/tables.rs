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
    let Some(norms) = &host.inverse_norms else { return numbers(tables.components().unwrap()) };
    let output = &mol.item.as_ref().unwrap().output;
    let projected = Naive.linear(&numbers(&tables.raw), tables.len(), output, Activation::Identity, None);
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
    let (n_queries, n_items) = (batch.len(), tables.len());
    let (f, q) = mol.query_side(&mut Naive, &Naive.floats(&batch.embeddings), batch.len(), batch.user_ids.as_deref());
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

/// How far a number of a vector of this largest magnitude may be off where it becomes a fixed-point number, for 8-bit tables:
/// half of the vector's scale, which is less than a 16256th of that magnitude, or 2^-125.
fn half_scale(largest: f64) -> f64 {
    (largest / 32512.0).max(2f64.powi(-126))
}

/// A vector as the scan of a table sees it.
fn seen(vector: &[f32], table: &Table) -> Vec<Num> {
    let group = |values: &[f32]| {
        let largest = values.iter().map(|x| f64::from(x.abs())).fold(0.0, f64::max);
        let error = if table.dtype() == Dtype::I8 { half_scale(largest) } else { 0.0 };
        values.iter().map(|&x| Num { value: x.into(), error }).collect::<Vec<_>>()
    };
    vector.chunks(table.group_width()).flat_map(group).collect()
}

/// (V, N): inner products of vectors with some columns of the tables.
pub fn column_scores(mol: &Mol<Tensor>, tables: &Tables, vectors: &Tensor, columns: Columns) -> Vec<Vec<Num>> {
    let host = tables.mol.as_ref().unwrap();
    let groups = match columns {
        Columns::Mean => return scores_of(vectors, &host.mean),
        Columns::Principal => return scores_of(vectors, host.principal.as_ref().unwrap()),
        Columns::Group(group) => group..group + 1,
        Columns::All => 0..mol.config.item_dot_product_groups,
    };
    let weights = mol.map(&mut |tensor| Naive.floats(tensor));
    let (values, d_p) = (components(&weights, tables), mol.config.dot_product_dimension);
    let item = |i: usize| row(&values, tables.len(), i)[groups.start * d_p..groups.end * d_p].iter().copied();
    let score = |vector: &[f32], i: usize| match &host.inverse_norms {
        None => dot(&seen(vector, tables.components().unwrap()), item(i)),
        Some(norms) => {
            let exactly: Vec<Num> = vector.iter().map(|&x| exact(x)).collect();
            let mut score = dot(&exactly, item(i));
            if tables.dtype() == Dtype::I8 {
                // The vectors that are rounded are the transformed ones.
                let (raw, norms) = (tables.raw.read_rows(i..i + 1), norms.read_rows(i..i + 1));
                let magnitude: f64 = raw.iter().map(|x| f64::from(x.abs())).sum();
                for (v, m) in exactly.chunks(d_p).zip(groups.clone()) {
                    score.error += half_scale(largest_transformed(&weights, v, m)) * magnitude * f64::from(norms[m]);
                }
            }
            score
        }
    };
    let scores = |v: usize| (0..tables.len()).map(|i| score(vectors.row(v), i)).collect();
    (0..vectors.rows()).map(scores).collect()
}

/// The largest magnitude that a number of W_m^T v may have.
fn largest_transformed(mol: &Weights, v: &[Num], m: usize) -> f64 {
    let output = &mol.item.as_ref().unwrap().output;
    let column = |d: usize| output.weight[d * output.n_out + m * v.len()..][..v.len()].iter().copied();
    let numbers = (0..output.n_in).map(|d| dot(v, column(d)));
    numbers.map(|number| number.value.abs() + number.error).fold(0.0, f64::max)
}

/// (V, N): inner products of vectors with the rows of a table.
pub fn scores_of(vectors: &Tensor, table: &Table) -> Vec<Vec<Num>> {
    let values = numbers(table);
    let item = |i: usize| row(&values, table.rows(), i).iter().copied();
    let scores = |v: Vec<Num>| (0..table.rows()).map(|i| dot(&v, item(i))).collect();
    (0..vectors.rows()).map(|v| scores(seen(vectors.row(v), table))).collect()
}
