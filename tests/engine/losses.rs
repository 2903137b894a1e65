//! The losses of training on a GPU against those of the CPU, which are compared with their definitions beside their code: in one round,
//! and in many.

use std::sync::Arc;

use crate::common::gpu;
use crate::common::naive::random;
use rails_wgpu::backend::cpu::CpuOps;
use rails_wgpu::backend::gpu::{Gpu, GpuTrainingOps};
use rails_wgpu::backend::loss::{FullSoftmax, GateDropout, SampledSoftmax};
use rails_wgpu::backend::{MolArrays, MolLossSettings, TrainingOps};
use rails_wgpu::config::{GatingCombination, MolConfig};
use rails_wgpu::model::CrossGate;
use rails_wgpu::ops::Linear;
use rails_wgpu::random::{Dropout, Random};
use rails_wgpu::tensor::Tensor;

/// P, R and M.
const SIZES: (usize, usize, usize) = (70, 3, 11);

fn tensor(seed: u64, rows: usize, width: usize) -> Tensor {
    Tensor::new(vec![rows, width], random(seed, rows * width)).unwrap()
}

/// Items of pairs; of some, a negative is the positive.
fn places(n: usize, step: usize) -> Vec<u32> {
    (0..n).map(|i| ((i * step + i / 5) % SIZES.2) as u32).collect()
}

/// Losses, then gradients.
type Results = (Vec<f64>, Vec<Vec<f32>>);

/// Where results differ by more than rounding, if anywhere.
fn compare(found: &Results, expected: &Results) -> Result<(), String> {
    for (found, expected) in found.0.iter().zip(&expected.0) {
        let is_close = (found - expected).abs() <= 1e-5 * expected.abs() + 1e-7;
        if !is_close {
            return Err(format!("a loss is {found}, not {expected}"));
        }
    }
    for (number, (found, expected)) in found.1.iter().zip(&expected.1).enumerate() {
        let greatest = expected.iter().fold(0.0, |greatest: f32, x| greatest.max(x.abs()));
        for (i, (a, b)) in found.iter().zip(expected).enumerate() {
            let is_close = (a - b).abs() <= 2e-5 * greatest + 1e-9;
            if !is_close {
                return Err(format!("gradient {number}, element {i} is {a}, not {b}, of at most {greatest}"));
            }
        }
        assert_eq!(found.len(), expected.len());
    }
    Ok(())
}

/// The results of `run` on the GPU in one round and in rounds of one position each or little more, and that of the CPU.
fn check<L>(gpu: &Arc<Gpu>, what: &str, loss: &L, on_gpu: fn(&L, GpuTrainingOps) -> Results, expected: &Results) {
    for round in [1 << 25, 1] {
        let found = on_gpu(loss, GpuTrainingOps::new(gpu).with_round(round));
        compare(&found, expected).unwrap_or_else(|wrong| panic!("{what}, rounds of {round}: {wrong}"));
    }
}

struct Dot {
    temperature: f32,
    has_correction: bool,
    is_full: bool,
}

impl Dot {
    fn run<B: TrainingOps>(&self, mut ops: B) -> Results {
        let ((n, r, m), dim) = (SIZES, 5);
        let (queries, items) = (ops.floats(&tensor(1, n, dim)), ops.floats(&tensor(2, m, dim)));
        let (positives, negatives, correction) = (places(n, 7), places(n * r, 3), random(3, m));
        let temperature = self.temperature;
        let (loss, gradients) = if self.is_full {
            ops.full_softmax_loss(dim, &queries, &items, FullSoftmax { targets: &positives, temperature })
        } else {
            let correction = self.has_correction.then_some(&correction[..]);
            let softmax = SampledSoftmax { positives: &positives, negatives: &negatives, temperature, correction };
            ops.dot_loss(dim, &queries, &items, softmax)
        }
        .unwrap();
        (vec![loss], gradients.iter().map(|gradient| ops.read(gradient).unwrap()).collect())
    }
}

#[test]
fn softmaxes_of_inner_products_are_those_of_the_cpu() {
    let Some(gpu) = gpu::shared() else { return };
    for (has_correction, is_full) in [(false, false), (true, false), (false, true)] {
        let dot = Dot { temperature: 0.3, has_correction, is_full };
        let expected = dot.run(CpuOps::default());
        check(&gpu, &format!("{has_correction} {is_full}"), &dot, Dot::run, &expected);
        let other = Dot { temperature: 0.301, ..dot }.run(CpuOps::default());
        assert!(compare(&other, &expected).is_err());
    }
}

/// What varies.
#[derive(Clone, Copy, Debug)]
struct Mixture {
    combination: GatingCombination,
    hidden: Option<usize>,
    has_linear: bool,
    has_bias: bool,
    /// Of queries and of items.
    gates: (bool, bool),
    has_negative_queries: bool,
    /// Of logits and of probabilities.
    dropout: (f32, f32),
    mi_weight: f32,
}

impl Mixture {
    fn run<B: TrainingOps>(&self, mut ops: B) -> Results {
        let ((n, r, m), (p_q, p_x, d_p)) = (SIZES, (2, 5, 3));
        let n_logits = p_q * p_x;
        let mut next = 10;
        let mut array = |rows: usize, width: usize| {
            next += 1;
            ops.floats(&tensor(next, rows, width))
        };
        let mut side = |rows: usize, width: usize, has_gate: bool| {
            (array(rows, width * d_p), has_gate.then(|| array(rows, n_logits)))
        };
        let queries = side(n, p_q, self.gates.0);
        let negative_queries = self.has_negative_queries.then(|| side(n, p_q, self.gates.0));
        let items = side(m, p_x, self.gates.1);
        let mut layer = |n_in: usize, n_out: usize| Linear {
            weight: array(n_in, n_out),
            bias: self.has_bias.then(|| array(1, n_out)),
            n_in,
            n_out,
        };
        let hidden = self.hidden.map(|hidden| layer(n_logits, hidden));
        let output = layer(self.hidden.unwrap_or(n_logits), n_logits);
        let linear = self.has_linear.then(|| array(n_logits, n_logits));
        let arrays = MolArrays { queries, negative_queries, items, cross: CrossGate { hidden, output, linear } };
        let config = MolConfig {
            query_dot_product_groups: p_q,
            item_dot_product_groups: p_x,
            dot_product_dimension: d_p,
            given_components: false,
            temperature: 0.4,
            dot_product_l2_norm: true,
            eps: 1e-6,
            query_hidden: None,
            item_hidden: None,
            uid_embedding_hash_sizes: Vec::new(),
            gating_combination: self.combination,
            gating_query_hidden_dim: None,
            gating_item_hidden_dim: None,
            gating_qi_hidden_dim: self.hidden,
        };
        let [positive_dropout, negative_dropout] = [0, 1].map(|site| {
            let of = |what: u32, rate: f32| Dropout::new(Random::new(3).stream(1, 2 * site + what), rate);
            GateDropout { logits: of(0, self.dropout.0), probabilities: of(1, self.dropout.1) }
        });
        let (positives, negatives) = (places(n, 7), places(n * r, 3));
        let settings = MolLossSettings {
            config: &config,
            softmax: SampledSoftmax {
                positives: &positives,
                negatives: &negatives,
                temperature: 0.7,
                correction: None,
            },
            positive_dropout,
            negative_dropout,
            mi_weight: self.mi_weight,
        };
        let (value, gradients) = ops.mol_loss(&arrays, &settings).unwrap();
        let mut read = Vec::new();
        gradients.map(&mut |gradient: &B::Floats| read.push(ops.read(gradient).unwrap()));
        (vec![value.loss, value.mi_loss], read)
    }
}

#[test]
fn losses_of_mixtures_are_those_of_the_cpu() {
    use GatingCombination::{GluSilu, GluSiluLn, None as Sum};
    let Some(gpu) = gpu::shared() else { return };
    let base = Mixture {
        combination: GluSilu,
        hidden: Some(7),
        has_linear: false,
        has_bias: true,
        gates: (true, true),
        has_negative_queries: false,
        dropout: (0.0, 0.0),
        mi_weight: 0.5,
    };
    let cases = [
        base,
        Mixture { combination: GluSiluLn, dropout: (0.3, 0.4), has_negative_queries: true, ..base },
        Mixture { combination: Sum, hidden: None, dropout: (0.2, 0.0), ..base },
        // Probabilities of which dropout often leaves none.
        Mixture { gates: (false, true), has_linear: true, dropout: (0.5, 0.95), ..base },
        Mixture { combination: GluSiluLn, gates: (true, false), hidden: None, mi_weight: 0.0, ..base },
        Mixture { combination: Sum, gates: (false, false), has_bias: false, has_linear: true, ..base },
    ];
    for case in cases {
        let expected = case.run(CpuOps::default());
        check(&gpu, &format!("{case:?}"), &case, Mixture::run, &expected);
        let other = Mixture { mi_weight: case.mi_weight + 1e-2, ..case }.run(CpuOps::default());
        assert!(compare(&other, &expected).is_err(), "{case:?}");
    }
}
