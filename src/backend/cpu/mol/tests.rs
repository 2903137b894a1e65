//! The stages against the definition in f64, on the instruction set of this machine.

use super::bound::BoundStage;
use super::gradient::{GradientScratch, GradientStage, MolGradient};
use super::kernel::MolKernel;
use super::mixture::MixtureStage;
use super::scratch::MolScratch;
use crate::backend::cpu::dot::micro_kernel::TILE;
use crate::backend::cpu::simd::run;
use crate::config::{GatingCombination, MolConfig};
use crate::model::CrossGate;
use crate::ops::Linear;
use crate::tensor::Tensor;

const L: usize = 6;
const H: usize = 5;

fn waves(n: usize, step: f32) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * step + 0.3).sin()).collect()
}

fn linear(n_in: usize, n_out: usize, step: f32) -> Linear<Tensor> {
    let tensor = |shape: Vec<usize>, step: f32| {
        let n = shape.iter().product();
        Tensor::trusted(shape, waves(n, step))
    };
    Linear { weight: tensor(vec![n_in, n_out], step), bias: Some(tensor(vec![n_out], 1.7 * step)), n_in, n_out }
}

fn config(gating_combination: GatingCombination) -> MolConfig {
    MolConfig {
        query_dot_product_groups: 2,
        item_dot_product_groups: 3,
        dot_product_dimension: 4,
        given_components: false,
        temperature: 0.05,
        dot_product_l2_norm: true,
        eps: 1e-6,
        query_hidden: None,
        item_hidden: None,
        uid_embedding_hash_sizes: Vec::new(),
        gating_combination,
        gating_query_hidden_dim: None,
        gating_item_hidden_dim: None,
        gating_qi_hidden_dim: None,
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn apply(layer: &Linear<Tensor>, x: &[f64]) -> Vec<f64> {
    let bias = layer.bias.as_ref().expect("a bias").data();
    let sum = |out: usize| (0..layer.n_in).map(|i| x[i] * f64::from(layer.weight.row(i)[out])).sum::<f64>();
    (0..layer.n_out).map(|out| sum(out) + f64::from(bias[out])).collect()
}

/// The score of a pair with these logits and one-sided gate parts.
fn score(combination: GatingCombination, cross: &CrossGate<Tensor>, z: &[f64], query: &[f32], item: &[f32]) -> f64 {
    let hidden = cross.hidden.as_ref().map(|layer| apply(layer, z).into_iter().map(|x| x * sigmoid(x)).collect());
    let cross: Vec<f64> = apply(&cross.output, &hidden.unwrap_or(z.to_vec()));
    let sides: Vec<(f64, f64)> = query.iter().zip(item).map(|(&q, &i)| (q.into(), i.into())).collect();
    let glu: Vec<f64> = cross.iter().zip(&sides).map(|(cross, (q, i))| q * i + cross).collect();
    let mean = glu.iter().sum::<f64>() / L as f64;
    let variance = glu.iter().map(|g| (g - mean) * (g - mean)).sum::<f64>() / L as f64;
    let weights: Vec<f64> = match combination {
        GatingCombination::None => cross.iter().zip(&sides).map(|(cross, (q, i))| q + i + cross).collect(),
        GatingCombination::GluSilu => glu.iter().map(|g| g * sigmoid(*g)).collect(),
        GatingCombination::GluSiluLn => {
            glu.iter().map(|g| g * sigmoid((g - mean) / (variance + 1e-5).sqrt())).collect()
        }
    };
    let shares: Vec<f64> = weights.iter().map(|weight| weight.exp()).collect();
    shares.iter().zip(z).map(|(share, z)| share * z).sum::<f64>() / shares.iter().sum::<f64>()
}

#[test]
fn scores_bounds_and_gradients_are_those_of_the_definition() {
    let mut first_scores = Vec::new();
    for combination in [GatingCombination::None, GatingCombination::GluSilu, GatingCombination::GluSiluLn] {
        for hidden in [Some(linear(L, H, 0.9)), None] {
            let output = linear(hidden.as_ref().map_or(L, |layer| layer.n_out), L, 1.1);
            let cross = CrossGate { hidden, output, linear: None };
            let kernel = MolKernel::new(&config(combination), &cross);
            let (logits, query_gate, item_gate) = (waves(L * TILE, 0.37), waves(L, 2.1), waves(L * TILE, 0.71));
            let work = &mut MolScratch::default();
            work.fit(&kernel);
            work.logits(&kernel).copy_from_slice(&logits);
            let (mut scores, mut bounds, mut out) = ([0.0; TILE], [0.0; TILE], GradientScratch::default());
            let (query_gate, item_gate) = (Some(query_gate.as_slice()), Some(item_gate.as_slice()));
            run(BoundStage { kernel: &kernel, work, bounds: &mut bounds });
            run(MixtureStage { kernel: &kernel, query_gate, item_gate, work, scores: &mut scores });
            let gradient = &MolGradient::new(&cross);
            run(GradientStage { kernel: &kernel, gradient, query_gate, item_gate, work, out: &mut out });
            for item in 0..TILE {
                let of_item = |rows: &[f32]| (0..L).map(|l| rows[l * TILE + item]).collect::<Vec<f32>>();
                let z: Vec<f64> = of_item(&logits).into_iter().map(f64::from).collect();
                let sides = (query_gate.unwrap_or_default(), of_item(item_gate.unwrap_or_default()));
                let score = |z: &[f64]| score(combination, &cross, z, sides.0, &sides.1);
                let (exact, found) = (score(&z), f64::from(scores[item]));
                assert!((found - exact).abs() < 4e-6, "{combination:?}, item {item}: {found} for {exact}");
                let largest = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                assert!((0.0..1e-4).contains(&(f64::from(bounds[item]) - largest)), "{} {largest}", bounds[item]);
                for (l, found) in of_item(out.gradient()).into_iter().enumerate() {
                    let moved = |by: f64| {
                        let mut z = z.clone();
                        z[l] += by;
                        score(&z)
                    };
                    let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                    let close = (f64::from(found) - slope).abs() < 2e-5;
                    assert!(close, "{combination:?}, item {item}, logit {l}: {found} for {slope}");
                }
            }
            first_scores.push(scores[0]);
        }
    }
    first_scores.sort_by(f32::total_cmp);
    assert!(first_scores.windows(2).all(|pair| pair[1] - pair[0] > 1e-3), "gates that show: {first_scores:?}");
}
