//! Tangent MIPS: near the top of the ranking a mixture of logits is almost linear in its logits. The derivative of the score
//! with respect to each logit, gate included, averaged over the best items of a sample, gives weights t[n,m] with
//! which `sum_{n,m} t[n,m] <f_n, g_m>` = <v, (g_1, ..., g_{P_X})> with v_m = sum_n t[n,m] f_n: one inner product per item
//! with a vector that the model itself writes.

use rayon::prelude::*;

use super::candidates::QuerySide;
use crate::Result;
use crate::backend::QueryBatch;
use crate::config::GatingCombination;
use crate::index::ItemIndex;
use crate::model::Mol;
use crate::tensor::Tensor;

/// Items of the sample that the derivative is averaged over.
const BEST: usize = 64;

/// (B, P_X * D_P): the vector v of each query.
pub(super) fn vectors(index: &ItemIndex, mol: &Mol<Tensor>, side: &QuerySide, queries: &QueryBatch) -> Result<Tensor> {
    let (p_q, p_x) = (mol.config.query_dot_product_groups, mol.config.item_dot_product_groups);
    let d_p = mol.config.dot_product_dimension;
    let n_queries = queries.user_ids.len();
    let Some(sample) = index.sample() else {
        return Ok(Tensor::new(vec![n_queries, 0], Vec::new()));
    };
    let best = sample.best(queries, BEST)?;
    let vector = |(query, best): (usize, &Vec<crate::backend::ScoredPosition>)| {
        let f = side.components.row(query);
        let query_gate = side.gate.as_ref().map(|gate| gate.row(query));
        let mut weights = vec![0.0; p_q * p_x];
        for hit in best {
            let g = sample.components.row(hit.position as usize);
            let pairs = f.chunks_exact(d_p).flat_map(|f| g.chunks_exact(d_p).map(move |g| dot(f, g)));
            let z: Vec<f32> = pairs.map(|dot| dot / mol.config.temperature).collect();
            let item_gate = sample.gate.as_ref().map(|gate| gate.row(hit.position as usize));
            let gradient = logit_gradient(mol, &z, query_gate, item_gate);
            weights.iter_mut().zip(gradient).for_each(|(sum, value)| *sum += value / best.len() as f32);
        }
        let mut v = vec![0.0; p_x * d_p];
        for (n, f) in f.chunks_exact(d_p).enumerate() {
            for (m, v) in v.chunks_exact_mut(d_p).enumerate() {
                v.iter_mut().zip(f).for_each(|(v, f)| *v += weights[n * p_x + m] * f);
            }
        }
        v
    };
    let rows: Vec<Vec<f32>> = best.par_iter().enumerate().map(vector).collect();
    Ok(Tensor::new(vec![n_queries, p_x * d_p], rows.concat()))
}

/// (L): derivative of the Mixture-of-Logits score of one pair with respect to its logits `z` (L), given the one-sided gate
/// parts (L) that exist.
pub fn logit_gradient(mol: &Mol<Tensor>, z: &[f32], query_gate: Option<&[f32]>, item_gate: Option<&[f32]>) -> Vec<f32> {
    let n_logits = z.len();
    let cross = &mol.gate_cross;
    let bias = |bias: &Option<Tensor>, n: usize| bias.as_ref().map_or(vec![0.0; n], |bias| bias.data().to_vec());

    // Forward, keeping what the way back needs.
    let pre = cross.hidden.as_ref().map(|layer| {
        let mut pre = bias(&layer.bias, layer.n_out);
        z.iter().enumerate().for_each(|(l, &z)| add_scaled(&mut pre, z, layer.weight.row(l)));
        pre
    });
    let inputs: Vec<f32> = pre.as_ref().map_or(z.to_vec(), |pre| pre.iter().map(|&x| x * sigmoid(x)).collect());
    let mut g = bias(&cross.output.bias, n_logits);
    inputs.iter().enumerate().for_each(|(h, &a)| add_scaled(&mut g, a, cross.output.weight.row(h)));
    let combination = mol.config.gating_combination;
    for (l, g) in g.iter_mut().enumerate() {
        *g += match (query_gate.map(|gate| gate[l]), item_gate.map(|gate| gate[l])) {
            (Some(q), Some(x)) if combination == GatingCombination::None => q + x,
            (Some(q), Some(x)) => q * x,
            (Some(part), None) | (None, Some(part)) => part,
            (None, None) => 0.0,
        };
    }
    let norm = Norm::new(&g);
    let w: Vec<f32> = match combination {
        GatingCombination::GluSilu => g.iter().map(|&g| g * sigmoid(g)).collect(),
        GatingCombination::GluSiluLn => g.iter().zip(&norm.values).map(|(&g, &y)| g * sigmoid(y)).collect(),
        GatingCombination::None => g.clone(),
    };
    let greatest = w.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut pi: Vec<f32> = w.iter().map(|&w| (w - greatest).exp()).collect();
    let total: f32 = pi.iter().sum();
    pi.iter_mut().for_each(|pi| *pi /= total);
    let score = dot(&pi, z);

    // Back: the logits act directly through the mixture, and through the gate.
    let dw: Vec<f32> = pi.iter().zip(z).map(|(pi, z)| pi * (z - score)).collect();
    let dg: Vec<f32> = match combination {
        GatingCombination::GluSilu => dw.iter().zip(&g).map(|(dw, &g)| dw * silu_slope(g)).collect(),
        GatingCombination::GluSiluLn => {
            let slope = |y: f32| sigmoid(y) * (1.0 - sigmoid(y));
            let dy: Vec<f32> = (0..n_logits).map(|l| dw[l] * g[l] * slope(norm.values[l])).collect();
            let through = norm.back(&dy);
            (0..n_logits).map(|l| dw[l] * sigmoid(norm.values[l]) + through[l]).collect()
        }
        GatingCombination::None => dw,
    };
    let da: Vec<f32> = (0..inputs.len()).map(|h| dot(cross.output.weight.row(h), &dg)).collect();
    let mut gradient = pi;
    match (&cross.hidden, &pre) {
        (Some(layer), Some(pre)) => {
            let dpre: Vec<f32> = da.iter().zip(pre).map(|(da, &pre)| da * silu_slope(pre)).collect();
            gradient.iter_mut().enumerate().for_each(|(l, sum)| *sum += dot(layer.weight.row(l), &dpre));
        }
        _ => gradient.iter_mut().zip(da).for_each(|(sum, da)| *sum += da),
    }
    gradient
}

/// Layer norm of one vector, eps 1e-5.
struct Norm {
    values: Vec<f32>,
    deviation: f32,
}

impl Norm {
    fn new(x: &[f32]) -> Norm {
        let n = x.len() as f32;
        let mean = x.iter().sum::<f32>() / n;
        let variance = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / n;
        let deviation = (variance + 1e-5).sqrt();
        Norm { values: x.iter().map(|x| (x - mean) / deviation).collect(), deviation }
    }

    /// The derivative with respect to x, given that with respect to the normalised values.
    fn back(&self, dy: &[f32]) -> Vec<f32> {
        let n = dy.len() as f32;
        let mean = dy.iter().sum::<f32>() / n;
        let along = dot(dy, &self.values) / n;
        self.values.iter().zip(dy).map(|(y, dy)| (dy - mean - y * along) / self.deviation).collect()
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// Derivative of x * sigmoid(x).
fn silu_slope(x: f32) -> f32 {
    let s = sigmoid(x);
    s * (1.0 + x * (1.0 - s))
}

fn add_scaled(sum: &mut [f32], scale: f32, values: &[f32]) {
    sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += scale * value);
}

/// Eight partial sums, so that the compiler may use SIMD lanes.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; 8];
    let (a_chunks, b_chunks) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        (0..8).for_each(|i| sums[i] += a[i] * b[i]);
    }
    sums.iter().sum::<f32>() + rest
}
