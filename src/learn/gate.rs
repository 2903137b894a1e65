//! Distilling the cross gate: a linear layer with a few hidden units beside it takes the place of the model's network.
//!
//! The cross gate part QI(z) is two thirds and more of the cost of a pair, 4 L H operations. Its stand-in
//! `A z + W2 silu(W1 z + b1) + b2` with 8 hidden units costs 2 L^2 + 32 L. It is fitted to what counts, the score: first the
//! linear part to QI itself by weighted least squares, then everything by stochastic gradients of the squared error of the
//! score, on the best items of some real queries and on random ones.

use rayon::prelude::*;

use super::learning::{GATE_SHARE, Learning, PAIRS_SHARE};
use super::least_squares::solve;
use super::sample::Sample;
use crate::backend::cpu::{CpuOps, Shared};
use crate::backend::{DeviceIndex, Exclusions, QueryBatch, Scorer};
use crate::config::GatingCombination;
use crate::error::Parameter;
use crate::model::{CrossGate, Mol};
use crate::ops::{Linear, Ops};
use crate::tensor::Tensor;
use crate::{Error, Result, threads};

/// H': hidden units.
const HIDDEN: usize = 8;

/// Of each query, items among the best of the sample, and as many others.
const ITEMS: usize = 64;

/// Passes over all pairs.
const EPOCHS: usize = 30;

/// Pairs per step.
const BATCH: usize = 256;

/// One (query, item) pair to learn from.
struct Pair {
    /// (L): logits, divided by their root mean square over all pairs.
    z: Vec<f32>,
    /// (L): one-sided gate parts, joined.
    base: Vec<f32>,
    /// (L): what the model's cross gate says.
    cross: Vec<f32>,
    score: f32,
}

/// Fits a distilled gate of `mol` to `queries`, which should be like those it will serve; a few hundred are enough.
///
/// # Errors
/// If there is no query, shapes do not fit, or nobody wants it any more.
pub(super) fn fit(
    mol: &Mol<Tensor>,
    sample: &Sample,
    queries: &QueryBatch,
    learning: &Learning,
) -> Result<CrossGate<Tensor>> {
    if mol.gate_cross.hidden.is_none() {
        // Nothing is cheaper than the linear gate that it is.
        return Ok(mol.gate_cross.clone());
    }
    if queries.is_empty() {
        return Err(Error::argument(Parameter::LearningQueries, "at least one, better some hundreds", "none"));
    }
    let (mut pairs, rms) = pairs(mol, sample, queries, learning)?;
    let mut random = Random(0x243f_6a88_85a3_08d3);
    let mut gate = Gate::fitted(mol.config.n_logits(), &pairs, &mut random, learning)?;
    let mut adam = Adam::new(gate.weights.len());
    let steps = EPOCHS * pairs.len().div_ceil(BATCH);
    for epoch in 0..EPOCHS {
        random.shuffle(&mut pairs);
        for (i, batch) in pairs.chunks(BATCH).enumerate() {
            let done = (epoch * pairs.len().div_ceil(BATCH) + i) as f32 / steps as f32;
            learning.reached(PAIRS_SHARE + (GATE_SHARE - PAIRS_SHARE) * done)?;
            let gradient = gate.gradient(mol.config.gating_combination, batch);
            adam.step(&mut gate.weights, &gradient, 3e-3 * (1.0 - done) + 1e-5);
        }
    }
    match gate.weights.iter().all(|weight| weight.is_finite()) {
        true => Ok(gate.into_cross(rms)),
        false => Err(Error::argument(
            Parameter::LearningQueries,
            "such as a gate can be fitted to",
            "scores too large for it",
        )),
    }
}

/// Pairs of all queries, and the root mean square of their logits.
fn pairs(mol: &Mol<Tensor>, sample: &Sample, queries: &QueryBatch, learning: &Learning) -> Result<(Vec<Pair>, f32)> {
    let config = &mol.config;
    let (d_p, n_logits) = (config.dot_product_dimension, config.n_logits());
    let weights = mol.map(&mut |tensor| CpuOps::default().floats(tensor));
    let (f, query_gates) = weights.query_side(
        &mut CpuOps::default(),
        &CpuOps::default().floats(&queries.embeddings),
        queries.len(),
        queries.user_ids.as_deref(),
    );
    let raw = sample.raw();
    let item = weights.item_side(&mut CpuOps::default(), &CpuOps::default().floats(&raw), raw.rows());
    let n = ITEMS.min(sample.len());
    let best = sample.index().scan(learning.context(), Scorer::Mol, &queries.prepared(), n, &Exclusions::default())?;
    learning.check()?;
    let cross = |z: &[f32]| -> Vec<f32> {
        let z = Shared::from(std::sync::Arc::new(z.to_vec()));
        let hidden = weights
            .gate_cross
            .hidden
            .as_ref()
            .map(|layer| CpuOps::default().linear(&z, 1, layer, crate::ops::Activation::Silu, None));
        let input = hidden.as_ref().unwrap_or(&z);
        CpuOps::default().linear(input, 1, &weights.gate_cross.output, crate::ops::Activation::Identity, None).to_vec()
    };
    let pair = |query: usize, position: usize| {
        let g =
            &item.components[position * config.item_dot_product_groups * d_p..][..config.item_dot_product_groups * d_p];
        let f = &f[query * config.query_dot_product_groups * d_p..][..config.query_dot_product_groups * d_p];
        let dots = f.chunks_exact(d_p).flat_map(|f| g.chunks_exact(d_p).map(move |g| dot(f, g)));
        let z: Vec<f32> = dots.map(|dot| dot / config.temperature).collect();
        let part = |gates: &Option<Shared>, row: usize, l: usize| gates.as_ref().map(|gates| gates[row * n_logits + l]);
        let join = |l| match (part(&query_gates, query, l), part(&item.gate, position, l), config.gating_combination) {
            (Some(q), Some(x), GatingCombination::None) => q + x,
            (Some(q), Some(x), _) => q * x,
            (Some(part), None, _) | (None, Some(part), _) => part,
            (None, None, _) => 0.0,
        };
        let base: Vec<f32> = (0..n_logits).map(join).collect();
        let cross = cross(&z);
        let gates: Vec<f32> = base.iter().zip(&cross).map(|(a, b)| a + b).collect();
        let (score, _) = mixture(config.gating_combination, &gates, &z);
        Pair { z, base, cross, score }
    };
    let context = learning.context();
    let of_query = |(query, best): (usize, &Vec<crate::backend::ScoredPosition>)| {
        let mut random = Random(0x1319_8a2e_0370_7344 ^ query as u64);
        let near = best.iter().map(|hit| hit.position as usize);
        let far: Vec<usize> = (0..n).map(|_| random.below(sample.len())).collect();
        let wanted = near.chain(far).take_while(|_| !context.is_cancelled());
        wanted.map(|position| pair(query, position)).collect::<Vec<Pair>>()
    };
    let mut pairs: Vec<Pair> = threads::run(|| best.par_iter().enumerate().flat_map_iter(of_query).collect());
    learning.check()?;
    let squares: f64 = pairs.iter().flat_map(|pair| &pair.z).map(|z| f64::from(z * z)).sum();
    let rms = (squares / (pairs.len() * n_logits).max(1) as f64).sqrt().max(1e-6) as f32;
    pairs.iter_mut().for_each(|pair| {
        pair.z.iter_mut().for_each(|z| *z /= rms);
        pair.score /= rms;
    });
    Ok((pairs, rms))
}

/// The stand-in: weights of A (L, L; by output), W1 (H', L), b1 (H'), W2 (L, H') and b2 (L), one after the other.
struct Gate {
    n_logits: usize,
    weights: Vec<f32>,
}

impl Gate {
    /// The best linear gate, and hidden units that do nothing yet.
    fn fitted(n_logits: usize, pairs: &[Pair], random: &mut Random, learning: &Learning) -> Result<Gate> {
        let linear = least_squares(n_logits, pairs, learning)?
            .ok_or_else(|| Error::argument(Parameter::LearningQueries, "different ones", "too few to fit a gate"))?;
        let width = n_logits + 1;
        let mut weights = Vec::with_capacity(n_logits * (n_logits + 2 * HIDDEN + 1) + HIDDEN);
        (0..n_logits).for_each(|l| weights.extend_from_slice(&linear[l * width..l * width + n_logits]));
        weights.extend((0..HIDDEN * n_logits).map(|_| random.normal() / (n_logits as f32).sqrt()));
        weights.extend(std::iter::repeat_n(0.0, HIDDEN + n_logits * HIDDEN));
        weights.extend((0..n_logits).map(|l| linear[l * width + n_logits]));
        Ok(Gate { n_logits, weights })
    }

    /// Where W1, b1, W2 and b2 begin.
    fn places(&self) -> [usize; 4] {
        let w1 = self.n_logits * self.n_logits;
        let b1 = w1 + HIDDEN * self.n_logits;
        let w2 = b1 + HIDDEN;
        [w1, b1, w2, w2 + self.n_logits * HIDDEN]
    }

    /// Gradient of the mean squared error of the score over a batch. Partial sums are added in a fixed order.
    fn gradient(&self, combination: GatingCombination, batch: &[Pair]) -> Vec<f32> {
        let partial = |pairs: &[Pair]| {
            let mut sum = vec![0.0; self.weights.len()];
            pairs.iter().for_each(|pair| self.add_gradient(combination, pair, &mut sum));
            sum
        };
        let partials: Vec<Vec<f32>> = threads::run(|| batch.par_chunks(BATCH / 4).map(partial).collect());
        let mut gradient = vec![0.0; self.weights.len()];
        for partial in partials {
            gradient.iter_mut().zip(partial).for_each(|(sum, part)| *sum += part / batch.len() as f32);
        }
        gradient
    }

    fn add_gradient(&self, combination: GatingCombination, pair: &Pair, sum: &mut [f32]) {
        let n = self.n_logits;
        let [w1, b1, w2, b2] = self.places();
        let weights = &self.weights;
        let inputs: Vec<f32> =
            (0..HIDDEN).map(|h| dot(&weights[w1 + h * n..][..n], &pair.z) + weights[b1 + h]).collect();
        let hidden: Vec<f32> = inputs.iter().map(|&x| x * sigmoid(x)).collect();
        let cross = |l: usize| {
            dot(&weights[l * n..][..n], &pair.z) + dot(&weights[w2 + l * HIDDEN..][..HIDDEN], &hidden) + weights[b2 + l]
        };
        let gates: Vec<f32> = (0..n).map(|l| pair.base[l] + cross(l)).collect();
        let (score, slopes) = mixture(combination, &gates, &pair.z);
        let error = 2.0 * (score - pair.score);
        let mut of_hidden = [0.0; HIDDEN];
        for (l, slope) in slopes.iter().enumerate() {
            let of_gate = error * slope;
            sum[l * n..][..n].iter_mut().zip(&pair.z).for_each(|(sum, z)| *sum += of_gate * z);
            sum[w2 + l * HIDDEN..][..HIDDEN].iter_mut().zip(&hidden).for_each(|(sum, h)| *sum += of_gate * h);
            sum[b2 + l] += of_gate;
            let row = &weights[w2 + l * HIDDEN..][..HIDDEN];
            of_hidden.iter_mut().zip(row).for_each(|(sum, w)| *sum += of_gate * w);
        }
        for h in 0..HIDDEN {
            let s = sigmoid(inputs[h]);
            let of_input = of_hidden[h] * s * (1.0 + inputs[h] * (1.0 - s));
            sum[w1 + h * n..][..n].iter_mut().zip(&pair.z).for_each(|(sum, z)| *sum += of_input * z);
            sum[b1 + h] += of_input;
        }
    }

    /// As a model's gate, for logits that are not divided by `rms`.
    fn into_cross(self, rms: f32) -> CrossGate<Tensor> {
        let n = self.n_logits;
        let [w1, b1, w2, b2] = self.places();
        // From rows of outputs to rows of inputs.
        let turned = |from: usize, n_in: usize, n_out: usize, scale: f32| {
            let value = |i: usize| self.weights[from + i % n_out * n_in + i / n_out] / scale;
            Tensor::trusted(vec![n_in, n_out], (0..n_in * n_out).map(value).collect())
        };
        let vector = |from: usize, n: usize| Some(Tensor::trusted(vec![n], self.weights[from..from + n].to_vec()));
        CrossGate {
            hidden: Some(Linear {
                weight: turned(w1, n, HIDDEN, rms),
                bias: vector(b1, HIDDEN),
                n_in: n,
                n_out: HIDDEN,
            }),
            output: Linear { weight: turned(w2, HIDDEN, n, 1.0), bias: vector(b2, n), n_in: HIDDEN, n_out: n },
            linear: Some(turned(0, n, n, rms)),
        }
    }
}

/// The mixture, and its derivatives with respect to the gates.
fn mixture(combination: GatingCombination, gates: &[f32], z: &[f32]) -> (f32, Vec<f32>) {
    let n = gates.len() as f32;
    let mean = gates.iter().sum::<f32>() / n;
    let variance = gates.iter().map(|g| (g - mean) * (g - mean)).sum::<f32>() / n;
    let deviation = (variance + 1e-5).sqrt();
    let normed = |g: f32| match combination {
        GatingCombination::GluSiluLn => (g - mean) / deviation,
        _ => g,
    };
    let w: Vec<f32> = gates
        .iter()
        .map(|&g| if combination == GatingCombination::None { g } else { g * sigmoid(normed(g)) })
        .collect();
    let greatest = w.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shares: Vec<f32> = w.iter().map(|w| (w - greatest).exp()).collect();
    let total: f32 = shares.iter().sum();
    let score = dot(&shares, z) / total;
    let of_w = shares.iter().zip(z).map(|(share, z)| share / total * (z - score));
    let slopes = match combination {
        GatingCombination::None => of_w.collect(),
        GatingCombination::GluSilu => {
            let slope = |g: f32| sigmoid(g) * (1.0 + g * (1.0 - sigmoid(g)));
            of_w.zip(gates).map(|(of_w, &g)| of_w * slope(g)).collect()
        }
        GatingCombination::GluSiluLn => {
            let of_w: Vec<f32> = of_w.collect();
            let y: Vec<f32> = gates.iter().map(|&g| normed(g)).collect();
            let dy: Vec<f32> =
                (0..y.len()).map(|l| of_w[l] * gates[l] * sigmoid(y[l]) * (1.0 - sigmoid(y[l]))).collect();
            let (mean_dy, along) = (dy.iter().sum::<f32>() / n, dot(&dy, &y) / n);
            let through = |l: usize| (dy[l] - mean_dy - y[l] * along) / deviation;
            (0..y.len()).map(|l| of_w[l] * sigmoid(y[l]) + through(l)).collect()
        }
    };
    (score, slopes)
}

/// (L, L + 1): for each output the weights of the logits and the bias that are closest to the model's cross gate.
fn least_squares(n_logits: usize, pairs: &[Pair], learning: &Learning) -> Result<Option<Vec<f32>>> {
    let width = n_logits + 1;
    let mut normal = vec![0.0f64; width * width];
    let mut right = vec![0.0f64; width * n_logits];
    for pair in pairs {
        learning.check()?;
        let x: Vec<f64> = pair.z.iter().map(|&z| f64::from(z)).chain([1.0]).collect();
        for (i, a) in x.iter().enumerate() {
            (0..width).for_each(|j| normal[i * width + j] += a * x[j]);
            (0..n_logits).for_each(|l| right[i * n_logits + l] += a * f64::from(pair.cross[l]));
        }
    }
    let ridge = 1e-6 * pairs.len() as f64;
    (0..width).for_each(|i| normal[i * width + i] += ridge);
    let solution = solve(normal, right, width, learning)?;
    let by_output =
        |solution: Vec<f64>| (0..n_logits * width).map(|i| solution[i % width * n_logits + i / width] as f32).collect();
    Ok(solution.map(by_output))
}

/// Adam (arXiv 1412.6980).
struct Adam {
    first: Vec<f32>,
    second: Vec<f32>,
    steps: i32,
}

impl Adam {
    fn new(n: usize) -> Adam {
        Adam { first: vec![0.0; n], second: vec![0.0; n], steps: 0 }
    }

    fn step(&mut self, weights: &mut [f32], gradient: &[f32], rate: f32) {
        self.steps += 1;
        let (a, b) = (1.0 - 0.9f32.powi(self.steps), 1.0 - 0.999f32.powi(self.steps));
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((weight, g), (first, second)) in weights.iter_mut().zip(gradient).zip(moments) {
            *first = 0.9 * *first + 0.1 * g;
            *second = 0.999 * *second + 0.001 * g * g;
            *weight -= rate * (*first / a) / ((*second / b).sqrt() + 1e-8);
        }
    }
}

/// A small generator of random numbers, always the same ones.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 32
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() as usize * n) >> 32
    }

    /// Roughly normal, variance 1: the sum of twelve uniform numbers.
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.next() as f32 / 4_294_967_296.0).sum::<f32>() - 6.0
    }

    fn shuffle<T>(&mut self, values: &mut [T]) {
        for i in (1..values.len()).rev() {
            values.swap(i, self.below(i + 1));
        }
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
