//! Every operation of the wgpu backend against its definition in f64, at sizes around every edge of its kernel.

use crate::common::gpu;
use crate::common::naive;
use crate::common::naive::{Naive, compare, exact, random};
use rails_wgpu::Error;
use rails_wgpu::backend::QueryEncoder;
use rails_wgpu::backend::gpu::{Gpu, GpuEncoder, Recorder};
use rails_wgpu::config::EmbeddingNorm;
use rails_wgpu::model::{Encoder, EncoderLayers, Gru4rec, GruLayer, Hstu, HstuLayer, Sasrec, SasrecLayer};
use rails_wgpu::ops::{
    Activation, AttentionMask, AttentionShape, DropoutSite, HstuShape, LayerNorm, Linear, Ops, Rows,
};
use rails_wgpu::sequence::SequenceBatch;
use rails_wgpu::tensor::Tensor;

/// Evaluates an expression over both kinds of `Ops` and compares; twice on the device, for the same bits.
macro_rules! check {
    ($gpu:expr, $ops:ident => $body:expr, $($case:tt)*) => {{
        let expected = {
            let $ops = &mut Naive;
            $body
        };
        let found = [(); 2].map(|()| {
            let $ops = &mut Recorder::new($gpu);
            let result = $body;
            $ops.read(&result).unwrap()
        });
        compare(&found[0], &expected).unwrap_or_else(|wrong| panic!("{}: {wrong}", format!($($case)*)));
        assert!(found[0].iter().zip(&found[1]).all(|(a, b)| a.to_bits() == b.to_bits()), "not repeatable");
    }};
}

fn tensor(seed: u64, shape: &[usize]) -> Tensor {
    Tensor::new(shape.to_vec(), random(seed, shape.iter().product())).unwrap()
}

/// A layer that keeps the scale of its input, as trained ones do.
fn linear(seed: u64, n_in: usize, n_out: usize) -> Linear<Tensor> {
    let weight = random(seed, n_in * n_out).iter().map(|w| w / (n_in as f32).sqrt()).collect();
    let bias = Some(tensor(seed + 1, &[n_out]));
    Linear { weight: Tensor::new(vec![n_in, n_out], weight).unwrap(), bias, n_in, n_out }
}

/// Sequences of these lengths; items 1..=9; times that rise by steps of all magnitudes.
fn batch(lengths: &[usize]) -> SequenceBatch {
    let mut batch = SequenceBatch { offsets: vec![0], ..SequenceBatch::default() };
    for (user, &length) in lengths.iter().enumerate() {
        let steps = random(user as u64 + 40, length + 1);
        let mut now = 1_000_000_000i64;
        let times: Vec<i64> = steps
            .iter()
            .map(|step| {
                now += (f64::from(step.abs()) * 18.0).exp() as i64;
                now
            })
            .collect();
        batch.user_ids.push(user as i64);
        batch.item_ids.extend((0..length as u32).map(|i| 1 + (7 * i + user as u32) % 9));
        batch.timestamps.extend(&times[..length]);
        batch.next_timestamps.extend(&times[1..]);
        batch.offsets.push(batch.item_ids.len() as u32);
    }
    batch
}

fn rows<O: Ops>(ops: &mut O, batch: &SequenceBatch) -> Rows<O::Ints> {
    Rows { n_rows: batch.n_rows(), max_length: batch.max_length(), start: ops.ints(&batch.row_starts()) }
}

/// Nothing is dropped out here.
const SITE: DropoutSite = DropoutSite::Attention { block: 0 };

const SEQUENCES: [&[usize]; 6] = [&[], &[1], &[16], &[15, 1, 18, 33, 2], &[17, 64], &[211]];

#[test]
fn linear_of_any_shape() {
    let Some(gpu) = gpu::shared() else { return };
    let activations =
        [Activation::Identity, Activation::Silu, Activation::Relu, Activation::Gelu, Activation::GeluTanh];
    let shapes =
        [(0, 5, 3), (1, 1, 1), (3, 5, 7), (63, 15, 65), (64, 16, 64), (65, 17, 63), (129, 50, 130), (2, 200, 5)];
    for (i, (n_rows, n_in, n_out)) in shapes.into_iter().enumerate() {
        for (j, activation) in activations.into_iter().enumerate() {
            let mut layer = linear(3, n_in, n_out);
            layer.bias = layer.bias.filter(|_| (i + j) % 3 != 0);
            let x = tensor(1, &[n_rows, n_in]);
            let residual = Some(tensor(2, &[n_rows, n_out])).filter(|_| (i + j) % 2 == 0);
            check!(&gpu, ops => {
                let (x, layer) = (ops.floats(&x), layer.map(&mut |t| ops.floats(t)));
                let residual = residual.as_ref().map(|residual| ops.floats(residual));
                ops.linear(&x, n_rows, &layer, activation, residual.as_ref())
            }, "linear {n_rows} {n_in} {n_out} {activation:?}");
        }
    }
}

#[test]
fn activations_over_their_whole_range() {
    let Some(gpu) = gpu::shared() else { return };
    let values: Vec<f32> = (-600..=600).map(|i| i as f32 / 100.0).collect();
    let n = values.len();
    let paired = Tensor::new(vec![n, 2], values.iter().flat_map(|&x| [x, 1.0]).collect()).unwrap();
    for activation in [Activation::Silu, Activation::Gelu, Activation::Relu] {
        check!(&gpu, ops => { let x = ops.floats(&paired); ops.glu(&x, n, 1, activation) }, "{activation:?}");
    }
    // Where exp or the Gaussian tail leave f32.
    let extreme = Tensor::new(vec![4, 2], vec![-1000.0, 1.0, -90.0, 1.0, 90.0, 1.0, 1000.0, 1.0]).unwrap();
    for activation in [Activation::Silu, Activation::Gelu] {
        let mut recorder = Recorder::new(&gpu);
        let x = recorder.floats(&extreme);
        let y = recorder.glu(&x, 4, 1, activation);
        let y = recorder.read(&y).unwrap();
        assert!(y[0].abs() < 1e-30 && y[1].abs() < 1e-30 && y[2] == 90.0 && y[3] == 1000.0, "{activation:?} {y:?}");
    }
}

#[test]
fn norms_of_any_width() {
    let Some(gpu) = gpu::shared() else { return };
    for (n_rows, width) in [(0, 4), (1, 1), (3, 50), (5, 63), (2, 64), (7, 65), (4, 257)] {
        let mut x = tensor(9, &[n_rows, width]).data().to_vec();
        x.iter_mut().take(width).for_each(|value| *value *= 1e-4);
        let x = Tensor::new(vec![n_rows, width], x).unwrap();
        check!(&gpu, ops => { let x = ops.floats(&x); ops.layer_norm(&x, n_rows, width, 1e-6) }, "layer {width}");
        check!(&gpu, ops => { let x = ops.floats(&x); ops.l2_norm(&x, n_rows, width, 0.01) }, "l2 {width}");
        for unbiased in [false, true].into_iter().take(width) {
            let (weight, bias) = (tensor(10, &[width]), tensor(11, &[width]));
            let norm = LayerNorm { weight, bias, width, eps: 1e-3, unbiased };
            check!(&gpu, ops => {
                let (x, norm) = (ops.floats(&x), norm.map(&mut |tensor| ops.floats(tensor)));
                ops.affine_layer_norm(&x, n_rows, &norm)
            }, "affine {width} {unbiased}");
        }
    }
}

#[test]
fn glu_gather_embed_and_concat() {
    let Some(gpu) = gpu::shared() else { return };
    for (n_rows, width) in [(0, 3), (1, 1), (5, 51), (4, 64), (257, 3)] {
        let (x, wide) = (tensor(4, &[n_rows, width]), tensor(5, &[n_rows, 2 * width]));
        for activation in [Activation::Silu, Activation::Gelu] {
            check!(&gpu, ops => { let x = ops.floats(&wide); ops.glu(&x, n_rows, width, activation) }, "glu {width}");
        }
        check!(&gpu, ops => {
            let (x, wide) = (ops.floats(&x), ops.floats(&wide));
            ops.concat(&[(&x, width), (&wide, 2 * width), (&x, width)], n_rows)
        }, "concat {n_rows} {width}");
        let table = tensor(6, &[11, width]);
        let indices: Vec<u32> = (0..n_rows as u32).map(|i| 5 * i % 11).collect();
        check!(&gpu, ops => {
            let (table, indices) = (ops.floats(&table), ops.ints(&indices));
            ops.gather(&table, width, &indices, n_rows)
        }, "gather {n_rows} {width}");
    }
    for lengths in SEQUENCES {
        let batch = batch(lengths);
        let (items, positions) = (tensor(7, &[10, 6]), tensor(8, &[211, 6]));
        check!(&gpu, ops => {
            let (items, positions, ids) = (ops.floats(&items), ops.floats(&positions), ops.ints(&batch.item_ids));
            let rows = rows(ops, &batch);
            ops.embed(&items, &positions, 6, 2.5, &ids, &rows)
        }, "embed {lengths:?}");
    }
}

#[test]
fn time_buckets_are_exact() {
    let Some(gpu) = gpu::shared() else { return };
    let mut extreme = batch(&[9, 3]);
    let edges = [i64::MIN, -1, 0, 1, i64::MAX, 1 << 32, (1 << 32) - 1, -(1 << 32), 7, 60, 1 << 40, 5];
    extreme.timestamps = edges.to_vec();
    extreme.next_timestamps = edges.iter().rev().copied().collect();
    for batch in SEQUENCES.map(batch).into_iter().chain([extreme]) {
        let naive_rows = rows(&mut Naive, &batch);
        let expected = Naive.time_buckets(&batch, &naive_rows);
        let mut recorder = Recorder::new(&gpu);
        let gpu_rows = rows(&mut recorder, &batch);
        let buckets = recorder.time_buckets(&batch, &gpu_rows);
        // One byte per pair, each row padded to whole words.
        let found = recorder.read_bytes(&buckets).unwrap();
        let stride = naive_rows.max_length.next_multiple_of(4);
        assert_eq!(found.len(), batch.n_rows() * stride);
        for i in 0..batch.n_rows() {
            for j in 0..=i - naive_rows.start[i] as usize {
                assert_eq!(u32::from(found[i * stride + j]), expected[i * naive_rows.max_length + j], "{i} {j}");
            }
        }
    }
}

#[test]
fn hstu_attention_of_any_shape() {
    let Some(gpu) = gpu::shared() else { return };
    let shapes = [(1, 1, 1), (2, 16, 16), (2, 25, 50), (1, 17, 65), (3, 33, 128)];
    for (heads, dqk, dv) in shapes {
        for lengths in SEQUENCES {
            let (batch, shape) = (batch(lengths), HstuShape { heads, dqk, dv, padded_length: 212 });
            let uvqk = tensor(1, &[batch.n_rows(), shape.uvqk()]);
            let attended = tensor(4, &[batch.n_rows(), shape.attended()]);
            let (pos_w, ts_w) = (tensor(2, &[423]), tensor(3, &[129]));
            check!(&gpu, ops => {
                let uvqk = ops.floats(&uvqk);
                let rows = rows(ops, &batch);
                let buckets = ops.time_buckets(&batch, &rows);
                let (pos_w, ts_w) = (ops.floats(&pos_w), ops.floats(&ts_w));
                ops.hstu_attention(&uvqk, shape, &rows, &buckets, &pos_w, &ts_w)
            }, "hstu_attention {heads} {dqk} {dv} {lengths:?}");
            for concat_ua in [false, true] {
                check!(&gpu, ops => {
                    let (uvqk, attended) = (ops.floats(&uvqk), ops.floats(&attended));
                    ops.hstu_gate(&uvqk, &attended, shape, batch.n_rows(), 1e-6, concat_ua)
                }, "hstu_gate {heads} {dv} {concat_ua}");
            }
        }
    }
}

#[test]
fn softmax_attention_of_any_shape() {
    let Some(gpu) = gpu::shared() else { return };
    for (heads, d, scale) in [(1, 1, 1.0), (2, 16, 1.0), (1, 50, 1.0), (2, 65, 20.0), (1, 128, 1.0)] {
        for lengths in SEQUENCES {
            let (batch, width) = (batch(lengths), heads * d);
            let q = random(1, batch.n_rows() * width).iter().map(|x| scale * x).collect();
            let (q, kv) =
                (Tensor::new(vec![batch.n_rows(), width], q).unwrap(), tensor(2, &[batch.n_rows(), 2 * width]));
            for mask in [AttentionMask::Causal, AttentionMask::Bidirectional] {
                check!(&gpu, ops => {
                    let (q, kv) = (ops.floats(&q), ops.floats(&kv));
                    let rows = rows(ops, &batch);
                    ops.softmax_attention(&q, &kv, AttentionShape { width, heads, mask }, &rows, SITE)
                }, "{mask:?} attention {heads} {d} {lengths:?}");
            }
        }
    }
}

#[test]
fn gru_of_any_shape() {
    let Some(gpu) = gpu::shared() else { return };
    for hidden in [1, 5, 63, 64, 65, 130] {
        for lengths in SEQUENCES.into_iter().filter(|lengths| lengths.iter().sum::<usize>() < 100) {
            let batch = batch(lengths);
            let x = tensor(1, &[batch.n_rows(), 3 * hidden]);
            // Small weights: bounds must not grow from step to step.
            let weight = random(2, 3 * hidden * hidden).iter().map(|w| 0.5 * w / hidden as f32).collect();
            let weight = Tensor::new(vec![hidden, 3 * hidden], weight).unwrap();
            for bias in [None, Some(tensor(3, &[3 * hidden]))] {
                let layer = Linear { weight: weight.clone(), bias, n_in: hidden, n_out: 3 * hidden };
                check!(&gpu, ops => {
                    let (x, layer) = (ops.floats(&x), layer.map(&mut |tensor| ops.floats(tensor)));
                    ops.gru(&x, &layer, &batch.offsets)
                }, "gru {hidden} {lengths:?}");
            }
        }
    }
}

/// (rows, 12): small values, as trained ones are.
fn embeddings(seed: u64, rows: usize) -> Tensor {
    Tensor::new(vec![rows, 12], random(seed, rows * 12).iter().map(|x| 0.1 * x).collect()).unwrap()
}

fn encoder(layers: EncoderLayers<Tensor>, norm: EmbeddingNorm) -> Encoder<Tensor> {
    let (items, positions) = (embeddings(1, 10), embeddings(2, 64));
    Encoder { items, positions: Some(positions), layers, dim: 12, norm, appends_one: false }
}

/// One layer: worst-case bounds multiply from layer to layer until they say nothing.
fn hstu() -> Encoder<Tensor> {
    let shape = HstuShape { heads: 2, dqk: 5, dv: 7, padded_length: 64 };
    let layers = vec![HstuLayer {
        uvqk: Linear { bias: None, ..linear(10, 12, shape.uvqk()) },
        output: linear(20, 14, 12),
        pos_w: tensor(30, &[127]),
        ts_w: tensor(40, &[129]),
    }];
    let hstu = Hstu { shape, activation: Activation::Silu, concat_ua: false, layers };
    encoder(EncoderLayers::Hstu(hstu), EmbeddingNorm::L2Norm)
}

fn sasrec() -> Encoder<Tensor> {
    let layers = vec![SasrecLayer {
        query: linear(50, 12, 12),
        key_value: linear(60, 12, 24),
        output: linear(70, 12, 12),
        ffn_in: linear(80, 12, 20),
        ffn_out: linear(90, 20, 12),
    }];
    let sasrec = Sasrec { heads: 3, activation: Activation::Gelu, layers };
    encoder(EncoderLayers::Sasrec(sasrec), EmbeddingNorm::LayerNorm)
}

/// What [`QueryEncoder::encode`] must yield; the bound must not have grown beyond use on the way.
fn assert_encodes(gpu: &std::sync::Arc<Gpu>, encoder: &Encoder<Tensor>, batch: &SequenceBatch) {
    let on_host = encoder.map(&mut |tensor| Naive.floats(tensor));
    let expected = on_host.forward(&mut Naive, batch, &mut |_, _, _| {});
    let worst = expected.iter().fold(0.0, |worst: f64, num| worst.max(num.error));
    assert!(worst < 0.01, "a bound of {worst} says nothing");
    let found = GpuEncoder::new(gpu, encoder).unwrap().encode(batch).unwrap();
    assert_eq!(found.shape(), [batch.len(), encoder.dim]);
    compare(found.data(), &expected).unwrap();
}

#[test]
fn whole_encoders() {
    let Some(gpu) = gpu::shared() else { return };
    for encoder in [hstu(), sasrec()] {
        for lengths in [&[][..], &[1], &[3, 20, 1, 9]] {
            assert_encodes(&gpu, &encoder, &batch(lengths));
        }
    }
}

#[test]
fn a_device_with_small_bindings_encodes_in_parts() {
    let Some(adapter) = gpu::adapter() else { return };
    // 1 KiB: less than the item table, a dozen rows of the widest array.
    let gpu = gpu::opened_with(&adapter, |limits| limits.max_storage_buffer_binding_size = 1024);
    let mut wide = hstu();
    wide.items = embeddings(1, 100);
    wide.positions = Some(embeddings(2, 20));
    if let EncoderLayers::Hstu(hstu) = &mut wide.layers {
        hstu.layers[0].uvqk = Linear { bias: None, ..linear(10, 12, 16) };
        hstu.layers[0].output = linear(20, 4, 12);
        hstu.shape = HstuShape { heads: 1, dqk: 4, dv: 4, padded_length: 64 };
    }
    assert_encodes(&gpu, &wide, &batch(&[3, 9, 1, 4, 12, 1]));
    let error = GpuEncoder::new(&gpu, &hstu()).unwrap_err();
    assert!(matches!(error, Error::Limit { have: 1024, .. }), "{error}");
}

#[test]
fn a_gru_that_is_too_wide_for_a_device_is_an_error() {
    let Some(adapter) = gpu::adapter() else { return };
    let gpu = gpu::opened_with(&adapter, |limits| limits.max_compute_workgroup_storage_size = 16384);
    let wide = |hidden: usize| {
        let layer = GruLayer { input: linear(1, 12, 3 * hidden), recurrent: linear(3, hidden, 3 * hidden) };
        let gru = Gru4rec { layers: vec![layer], dense: Some(linear(5, hidden, 12)) };
        let encoder = Encoder { positions: None, ..encoder(EncoderLayers::Gru4rec(gru), EmbeddingNorm::None) };
        GpuEncoder::new(&gpu, &encoder)
    };
    assert!(wide(1024).is_ok());
    let error = wide(1025).unwrap_err();
    assert!(matches!(error, Error::Limit { need: 16400, have: 16384, .. }), "{error}");
}

#[test]
fn the_comparison_rejects_wrong_results() {
    let Some(gpu) = gpu::shared() else { return };
    let (x, layer) = (tensor(1, &[65, 50]), linear(2, 50, 30));
    let mut recorder = Recorder::new(&gpu);
    let (on_device, device_layer) = (recorder.floats(&x), layer.map(&mut |t| recorder.floats(t)));
    let y = recorder.linear(&on_device, 65, &device_layer, Activation::Gelu, None);
    let found = recorder.read(&y).unwrap();
    let (on_host, host_layer) = (Naive.floats(&x), layer.map(&mut |t| Naive.floats(t)));
    let expected = |activation, layer| Naive.linear(&on_host, 65, layer, activation, None);
    let right = expected(Activation::Gelu, &host_layer);
    compare(&found, &right).unwrap();
    assert!(right.iter().all(|num| num.error < 1e-3), "bounds are of use");

    let unbiased = Linear { bias: None, ..host_layer.clone() };
    assert!(compare(&found, &expected(Activation::Gelu, &unbiased)).is_err());
    assert!(compare(&found, &expected(Activation::Silu, &host_layer)).is_err());
    assert!(compare(&found[1..], &right[..right.len() - 1]).is_err(), "shifted");
    assert!(compare(&found[1..], &right).is_err(), "short");
    let mut wrong = found.clone();
    wrong[70] += (2.1 * right[70].error) as f32;
    assert!(compare(&wrong, &right).is_err());
    wrong[70] = f32::NAN;
    assert!(compare(&wrong, &right).is_err());
}

#[test]
fn the_definition_gives_known_values() {
    let at = |x: f32, activation| {
        let row = Naive.floats(&Tensor::new(vec![1, 2], vec![x, 1.0]).unwrap());
        Naive.glu(&row, 1, 1, activation)[0].value
    };
    // x Phi(x) with Phi(1) = 0.841344746068543, Phi(-3) = 0.00134989803163009.
    assert!((at(1.0, Activation::Gelu) - 0.841_344_746_068_543).abs() < 1e-14);
    assert!((at(-3.0, Activation::Gelu) + 3.0 * 0.001_349_898_031_630_09).abs() < 1e-14);
    assert!((at(1.0, Activation::Silu) - 0.731_058_578_630_005).abs() < 1e-14);
    assert_eq!(naive::sum([exact(1.0), exact(-3.0)].into_iter()).value, -2.0);
    let rows = Rows { n_rows: 2, max_length: 2, start: Naive.ints(&[0, 0]) };
    // Logits 0 and ln 3: weights 1/4 and 3/4.
    let q = Naive.floats(&Tensor::new(vec![2, 1], vec![9.0, 3f32.ln()]).unwrap());
    let kv = Naive.floats(&Tensor::new(vec![2, 2], vec![0.0, 4.0, 1.0, 8.0]).unwrap());
    let shape = AttentionShape { width: 1, heads: 1, mask: AttentionMask::Causal };
    let y = Naive.softmax_attention(&q, &kv, shape, &rows, SITE);
    assert_eq!(y[0].value, 4.0);
    assert!((y[1].value - 7.0).abs() < 1e-6);
}
