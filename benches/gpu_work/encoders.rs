//! Encoders of the sizes of published models, on histories of the full length.

use std::sync::Arc;

use rails_wgpu::Result;
use rails_wgpu::backend::QueryEncoder;
use rails_wgpu::backend::gpu::{Gpu, GpuEncoder};
use rails_wgpu::config::EmbeddingNorm;
use rails_wgpu::model::{Encoder, EncoderLayers, Hstu, HstuLayer, Sasrec, SasrecLayer};
use rails_wgpu::ops::{Activation, HstuShape, Linear};
use rails_wgpu::sequence::SequenceBatch;
use rails_wgpu::tensor::Tensor;

use super::models::Random;
use super::{Cost, Work, cost};

const LENGTH: usize = 200;
const N_ITEMS: usize = 5000;

fn linear(random: &mut Random, n_in: usize, n_out: usize) -> Linear<Tensor> {
    let weight = random.tensor(&[n_in, n_out], 1.0 / (n_in as f32).sqrt());
    Linear { weight, bias: Some(random.tensor(&[n_out], 0.1)), n_in, n_out }
}

/// Linear layers of `rows` rows.
fn layers(rows: usize, layers: &[&Linear<Tensor>]) -> Cost {
    let flops: usize = layers.iter().map(|layer| 2 * rows * layer.n_in * layer.n_out).sum();
    let numbers = |layer: &&Linear<Tensor>| rows * (layer.n_in + layer.n_out) + layer.n_in * layer.n_out;
    cost(flops as f64, 4.0 * layers.iter().map(numbers).sum::<usize>() as f64)
}

/// Causal attention of full sequences: `width` products for each pair of rows of one head, and arrays of `numbers` per row.
fn attention(batch: usize, (n_layers, heads, width): (usize, usize, usize), numbers: usize) -> Cost {
    let pairs = n_layers * batch * heads * LENGTH * (LENGTH + 1) / 2;
    cost((2 * pairs * width) as f64, (4 * n_layers * batch * LENGTH * numbers) as f64)
}

fn hstu(random: &mut Random, dim: usize, n_layers: usize, (heads, d): (usize, usize)) -> Hstu<Tensor> {
    let shape = HstuShape { heads, dqk: d, dv: d, padded_length: LENGTH };
    let mut layer = || HstuLayer {
        uvqk: Linear { bias: None, ..linear(random, dim, shape.uvqk()) },
        output: linear(random, shape.attended(), dim),
        pos_w: random.tensor(&[2 * LENGTH - 1], 0.1),
        ts_w: random.tensor(&[129], 0.1),
    };
    let layers = (0..n_layers).map(|_| layer()).collect();
    Hstu { shape, activation: Activation::Silu, concat_ua: false, layers }
}

fn sasrec(random: &mut Random, dim: usize, n_layers: usize, heads: usize) -> Sasrec<Tensor> {
    let mut layer = || SasrecLayer {
        query: linear(random, dim, dim),
        key_value: linear(random, dim, 2 * dim),
        output: linear(random, dim, dim),
        ffn_in: linear(random, dim, dim),
        ffn_out: linear(random, dim, dim),
    };
    let layers = (0..n_layers).map(|_| layer()).collect();
    Sasrec { heads, activation: Activation::Relu, layers }
}

fn linears_of(layer: &SasrecLayer<Tensor>) -> [&Linear<Tensor>; 5] {
    [&layer.query, &layer.key_value, &layer.output, &layer.ffn_in, &layer.ffn_out]
}

/// Users with one event a minute each.
fn histories(n_users: usize) -> SequenceBatch {
    let n = n_users * LENGTH;
    let times: Vec<i64> = (0..n).map(|row| 1_000_000_000 + 60 * row as i64).collect();
    SequenceBatch {
        user_ids: (0..n_users as i64).collect(),
        offsets: (0..=n_users).map(|user| (user * LENGTH) as u32).collect(),
        item_ids: (0..n).map(|row| 1 + (row * 7919 % (N_ITEMS - 1)) as u32).collect(),
        next_timestamps: times.iter().map(|time| time + 60).collect(),
        timestamps: times,
    }
}

/// Encoders for batches of `n_users`.
pub fn works(gpu: &Arc<Gpu>, n_users: usize) -> Result<Vec<Work>> {
    let mut random = Random::new(5);
    let rows = n_users * LENGTH;
    let mut works = Vec::new();
    for (dim, n_layers, heads, d) in [(50, 8, 2, 25), (256, 16, 8, 32)] {
        let hstu = hstu(&mut random, dim, n_layers, (heads, d));
        let linears: Vec<&Linear<Tensor>> = hstu.layers.iter().flat_map(|layer| [&layer.uvqk, &layer.output]).collect();
        let costs = vec![
            ("linear", layers(rows, &linears)),
            ("hstu_attention", attention(n_users, (n_layers, heads, 2 * d), 4 * heads * d)),
        ];
        let words = format!("HSTU D={dim} layers={n_layers} heads={heads}x{d} N={LENGTH} B={n_users}");
        works.push(work(gpu, &mut random, (words, costs), (n_users, dim), EncoderLayers::Hstu(hstu))?);
    }
    let (dim, n_layers, heads) = (50, 2, 1);
    let sasrec = sasrec(&mut random, dim, n_layers, heads);
    let linears: Vec<&Linear<Tensor>> = sasrec.layers.iter().flat_map(linears_of).collect();
    let costs = vec![
        ("linear", layers(rows, &linears)),
        ("softmax_attention", attention(n_users, (n_layers, heads, 2 * dim), 4 * dim)),
    ];
    let words = format!("SASRec D={dim} layers={n_layers} heads={heads} N={LENGTH} B={n_users}");
    works.push(work(gpu, &mut random, (words, costs), (n_users, dim), EncoderLayers::Sasrec(sasrec))?);
    Ok(works)
}

fn work(
    gpu: &Arc<Gpu>,
    random: &mut Random,
    (shape, costs): (String, Vec<(&'static str, Cost)>),
    (n_users, dim): (usize, usize),
    layers: EncoderLayers<Tensor>,
) -> Result<Work> {
    let (items, positions) = (random.tensor(&[N_ITEMS, dim], 0.1), random.tensor(&[LENGTH, dim], 0.1));
    let encoder = GpuEncoder::new(
        gpu,
        &Encoder { items, positions: Some(positions), layers, dim, norm: EmbeddingNorm::L2Norm, appends_one: false },
    )?;
    let batch = histories(n_users);
    Ok(Work {
        shape,
        dtype: "f32",
        costs,
        only: false,
        run: Box::new(move |context| encoder.encode_with(context, &batch).map(drop)),
    })
}
