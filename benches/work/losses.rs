//! The losses of training, forward and backward, at the shapes of published configurations.

use std::hint::black_box;

use rails_wgpu::backend::cpu::loss::{dot_loss, full_softmax, mol_loss};
use rails_wgpu::backend::loss::{
    DotGradients, DotLoss, FullDotLoss, FullSoftmax, GateDropout, MolGradients, MolLoss, MolSide, MolSideGradient,
    SampledSoftmax,
};
use rails_wgpu::model::CrossGate;
use rails_wgpu::ops::Linear;
use rails_wgpu::random::{Dropout, Random as Numbers};

use super::Work;
use super::models::{Random, Shape};

/// Supervised events of 128 users of ML-1M, and its items.
const POSITIONS: usize = 21_120;
const ITEMS: usize = 3_706;

/// Negatives of each.
const NEGATIVES: usize = 128;

struct Batch {
    positives: Vec<u32>,
    negatives: Vec<u32>,
}

impl Batch {
    fn new(n: usize) -> Batch {
        let numbers = Numbers::new(1).stream(0, 0);
        let items = |first: u64, n: usize| (0..n as u64).map(|i| numbers.below(first + i, ITEMS as u32)).collect();
        Batch { positives: items(0, n), negatives: items(1 << 32, n * NEGATIVES) }
    }

    fn softmax(&self, temperature: f32) -> SampledSoftmax<'_> {
        SampledSoftmax { positives: &self.positives, negatives: &self.negatives, temperature, correction: None }
    }
}

/// All losses of at most so many positions.
pub fn losses(most: usize) -> Vec<Work> {
    let n = POSITIONS.min(most);
    vec![mol(n, 0.0), mol(n, 0.2), dot(n), full(n)]
}

/// Dropout of the gate's probabilities at this rate.
fn mol(n: usize, rate: f32) -> Work {
    let (p_q, p_x, d_p, n_hidden) = (8, 4, 64, 128);
    let n_logits = p_q * p_x;
    let random = &mut Random::new(7);
    let shape = Shape { p_q, p_x, d_p, hidden: Some(n_hidden), uid_sizes: Vec::new(), ..Shape::default() };
    let mol = shape.mol(random, 50);
    let scale = (3.0 / d_p as f32).sqrt();
    let [queries, items] = [(n, p_q), (ITEMS, p_x)].map(|(rows, groups)| random.tensor(&[rows, groups * d_p], scale));
    let [query_gate, item_gate] = [n, ITEMS].map(|rows| random.tensor(&[rows, n_logits], 1.0));
    let batch = Batch::new(n);
    let dropout = [1, 2].map(|site| GateDropout {
        logits: Dropout::new(Numbers::new(1).stream(0, 0), 0.0),
        probabilities: Dropout::new(Numbers::new(1).stream(0, site), rate),
    });
    let run = move || {
        let layer = |layer: &Linear<rails_wgpu::Tensor>| layer.map(&mut |tensor| tensor.data().to_vec());
        let of_hidden = mol.gate_cross.hidden.as_ref().map(layer);
        let of_output = layer(&mol.gate_cross.output);
        fn view(layer: &Linear<Vec<f32>>) -> Linear<&[f32]> {
            let bias = layer.bias.as_deref();
            Linear { weight: &layer.weight, bias, n_in: layer.n_in, n_out: layer.n_out }
        }
        fn view_mut(layer: &mut Linear<Vec<f32>>) -> Linear<&mut [f32]> {
            let bias = layer.bias.as_deref_mut();
            Linear { weight: &mut layer.weight, bias, n_in: layer.n_in, n_out: layer.n_out }
        }
        let loss = MolLoss {
            config: &mol.config,
            cross: CrossGate { hidden: of_hidden.as_ref().map(view), output: view(&of_output), linear: None },
            queries: MolSide { components: queries.data(), gate: Some(query_gate.data()) },
            negative_queries: None,
            items: MolSide { components: items.data(), gate: Some(item_gate.data()) },
            softmax: batch.softmax(1.0),
            positive_dropout: dropout[0],
            negative_dropout: dropout[1],
            mi_weight: 0.001,
        };
        let (mut hidden, mut output) = (of_hidden.clone(), of_output.clone());
        let [mut of_queries, mut of_items] = [&queries, &items].map(|tensor| vec![0.0; tensor.data().len()]);
        let [mut of_query_gate, mut of_item_gate] =
            [&query_gate, &item_gate].map(|tensor| vec![0.0; tensor.data().len()]);
        let mut gradients = MolGradients {
            queries: MolSideGradient { components: &mut of_queries, gate: Some(&mut of_query_gate) },
            negative_queries: None,
            items: MolSideGradient { components: &mut of_items, gate: Some(&mut of_item_gate) },
            cross: CrossGate { hidden: hidden.as_mut().map(view_mut), output: view_mut(&mut output), linear: None },
        };
        black_box(mol_loss(&loss, &mut gradients));
    };
    let pairs = (n * (NEGATIVES + 1)) as f64;
    Work {
        kernel: "mol_loss",
        shape: format!("ml-1m: P={n} R={NEGATIVES} M={ITEMS} {p_q}x{p_x}x{d_p} H={n_hidden}, gate dropout {rate}"),
        dtype: "f32",
        // Each product of the way there has two on the way back.
        flops: 3.0 * pairs * (2 * n_logits * d_p + 4 * n_logits * n_hidden) as f64,
        bytes: pairs * (4 * (p_x * d_p + n_logits)) as f64,
        run: Box::new(run),
    }
}

fn dot(n: usize) -> Work {
    let dim = 50;
    let random = &mut Random::new(8);
    let [queries, items] = [n, ITEMS].map(|rows| random.tensor(&[rows, dim], 0.2));
    let batch = Batch::new(n);
    let run = move || {
        let [mut of_queries, mut of_items] = [&queries, &items].map(|tensor| vec![0.0; tensor.data().len()]);
        let loss = DotLoss { dim, queries: queries.data(), items: items.data(), softmax: batch.softmax(0.05) };
        let mut gradients = DotGradients { queries: &mut of_queries, items: &mut of_items };
        black_box(dot_loss(&loss, &mut gradients));
    };
    let pairs = (n * (NEGATIVES + 1)) as f64;
    Work {
        kernel: "dot_loss",
        shape: format!("ml-1m: P={n} R={NEGATIVES} M={ITEMS} D={dim}"),
        dtype: "f32",
        flops: 6.0 * pairs * dim as f64,
        bytes: pairs * (4 * dim) as f64,
        run: Box::new(run),
    }
}

fn full(n: usize) -> Work {
    let dim = 64;
    let random = &mut Random::new(9);
    let [queries, items] = [n, ITEMS].map(|rows| random.tensor(&[rows, dim], 0.2));
    let targets = Batch::new(n).positives;
    let run = move || {
        let [mut of_queries, mut of_items] = [&queries, &items].map(|tensor| vec![0.0; tensor.data().len()]);
        let softmax = FullSoftmax { targets: &targets, temperature: 1.0 };
        let loss = FullDotLoss { dim, queries: queries.data(), items: items.data(), softmax };
        let mut gradients = DotGradients { queries: &mut of_queries, items: &mut of_items };
        black_box(full_softmax(&loss, &mut gradients));
    };
    Work {
        kernel: "full_softmax",
        shape: format!("ml-1m: P={n} N={ITEMS} D={dim}"),
        dtype: "f32",
        flops: 6.0 * (n * ITEMS * dim) as f64,
        bytes: (4 * ITEMS * dim) as f64,
        run: Box::new(run),
    }
}
