//! Gradients: finite differences prove the definition, and backends are compared with the definition, one operation at a time.

use std::rc::Rc;

#[cfg(feature = "gpu")]
use crate::common::gpu;
use crate::common::naive::{Naive, Num, compare, exact, random};
use rails_wgpu::backend::cpu::CpuOps;
#[cfg(feature = "gpu")]
use rails_wgpu::backend::gpu::GpuTrainingOps;
use rails_wgpu::config::DropoutRates;
use rails_wgpu::ops::{
    Activation, AttentionMask, AttentionShape, DropoutSite, GradientOps, HstuShape, LayerNorm, Linear, Ops, Rows,
};
use rails_wgpu::random::Random;
use rails_wgpu::sequence::SequenceBatch;
use rails_wgpu::tensor::Tensor;
use rails_wgpu::train::{Masks, Node, Tape};

/// An operation to be tested: what it reads, and how.
trait Operation {
    /// Shapes of the inputs.
    fn inputs(&self) -> Vec<Vec<usize>>;
    fn run<O: Ops>(&self, ops: &mut O, inputs: &[O::Floats]) -> O::Floats;
}

fn tensors(operation: &impl Operation) -> Vec<Tensor> {
    let shapes = operation.inputs().into_iter().zip(5..);
    shapes.map(|(shape, seed)| Tensor::new(shape.clone(), random(seed, shape.iter().product())).unwrap()).collect()
}

/// Dropout everywhere.
fn masks() -> Masks {
    let rates = DropoutRates::NONE
        .with_input(0.3)
        .with_attention(0.4)
        .with_feed_forward(0.25)
        .with_uid(0.5)
        .with_uid_whole(true);
    Masks::new(rates, Random::new(3), 8)
}

/// The result, and the gradient of `sum(seed * result)` with respect to each input.
fn differentiated<B: GradientOps<Floats: 'static, Ints: 'static>>(
    ops: &mut B,
    operation: &impl Operation,
    inputs: Vec<B::Floats>,
    seed: impl FnOnce(&B::Floats) -> B::Floats,
) -> (B::Floats, Vec<B::Floats>) {
    let mut tape = Tape::new(ops, masks());
    let nodes: Vec<Node<B::Floats>> = inputs.into_iter().map(|input| tape.leaf(input)).collect();
    let result = operation.run(&mut tape, &nodes);
    let (values, seed) = (result.values().clone(), seed(result.values()));
    let mut gradients = tape.backward(vec![(result, seed)]);
    (values, nodes.iter().map(|node| gradients.take(node).expect("an input that is used")).collect())
}

/// Numbers that weigh the elements of a result.
fn seed(n: usize) -> Vec<f32> {
    random(77, n)
}

fn seed_num(result: &Rc<Vec<Num>>) -> Rc<Vec<Num>> {
    Rc::new(seed(result.len()).into_iter().map(exact).collect())
}

fn by_definition(operation: &impl Operation, inputs: Vec<Rc<Vec<Num>>>) -> (Rc<Vec<Num>>, Vec<Rc<Vec<Num>>>) {
    differentiated(&mut Naive, operation, inputs, seed_num)
}

/// `sum(seed * result)`.
fn weighted(operation: &impl Operation, inputs: &[Rc<Vec<Num>>]) -> f64 {
    let mut naive = Naive;
    let mut tape = Tape::new(&mut naive, masks());
    let nodes: Vec<_> = inputs.iter().map(|input| tape.leaf(input.clone())).collect();
    let result = operation.run(&mut tape, &nodes);
    result.values().iter().zip(seed(result.values().len())).map(|(x, seed)| x.value * f64::from(seed)).sum()
}

/// Where the definition differs from central differences, if anywhere.
fn against_differences(operation: &impl Operation, gradients: &[Rc<Vec<Num>>]) -> Result<(), String> {
    const STEP: f64 = 1e-5;
    let inputs: Vec<Rc<Vec<Num>>> = tensors(operation).iter().map(|tensor| Naive.floats(tensor)).collect();
    for (number, gradient) in gradients.iter().enumerate() {
        for i in 0..gradient.len() {
            let moved = |by: f64| {
                let mut inputs = inputs.clone();
                let mut values = inputs[number].to_vec();
                values[i].value += by;
                inputs[number] = Rc::new(values);
                weighted(operation, &inputs)
            };
            let difference = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
            let found = gradient[i].value;
            if (found - difference).abs() > 1e-7 * (1.0 + difference.abs()) {
                return Err(format!("input {number}, element {i}: {found}, the difference says {difference}"));
            }
        }
    }
    Ok(())
}

/// A device against the definition.
fn check_device<B: GradientOps<Floats: 'static, Ints: 'static>>(what: &str, operation: &impl Operation, mut ops: B) {
    let tensors = tensors(operation);
    let (values, gradients) = by_definition(operation, tensors.iter().map(|tensor| Naive.floats(tensor)).collect());
    let inputs = tensors.iter().map(|tensor| ops.floats(tensor)).collect();
    let weights = ops.floats(&Tensor::new(vec![values.len()], seed(values.len())).unwrap());
    let (found, found_gradients) = differentiated(&mut ops, operation, inputs, |_| weights);
    compare(&ops.read(&found).unwrap(), &values).unwrap_or_else(|wrong| panic!("{what}: {wrong}"));
    for (number, (found, expected)) in found_gradients.iter().zip(&gradients).enumerate() {
        let found = ops.read(found).unwrap();
        compare(&found, expected).unwrap_or_else(|wrong| panic!("{what}, gradient of input {number}: {wrong}"));
    }
}

/// All devices against the definition.
fn check_devices(what: &str, operation: &impl Operation) {
    check_device(&format!("{what} on the CPU"), operation, CpuOps::default());
    check_device(&format!("{what} on the CPU, pooled"), operation, CpuOps::pooled());
    #[cfg(feature = "gpu")]
    if let Some(gpu) = gpu::shared() {
        check_device(&format!("{what} on the GPU"), operation, GpuTrainingOps::new(&gpu));
    }
}

/// Both.
fn check(what: &str, operation: impl Operation) {
    let inputs = tensors(&operation).iter().map(|tensor| Naive.floats(tensor)).collect();
    let (_, gradients) = by_definition(&operation, inputs);
    against_differences(&operation, &gradients).unwrap_or_else(|wrong| panic!("{what}: {wrong}"));
    check_devices(what, &operation);
}

/// Sequences of these lengths; items 1..=5; times that rise by steps of all magnitudes.
fn batch(lengths: &[usize]) -> SequenceBatch {
    let mut batch = SequenceBatch { offsets: vec![0], ..SequenceBatch::default() };
    for (user, &length) in lengths.iter().enumerate() {
        let mut now = 1_000_000i64;
        let times = random(user as u64 + 40, length + 1).into_iter().map(|step| {
            now += (f64::from(step.abs()) * 12.0).exp() as i64;
            now
        });
        let times: Vec<i64> = times.collect();
        batch.user_ids.push(user as i64);
        batch.item_ids.extend((0..length as u32).map(|i| 1 + (3 * i + user as u32) % 5));
        batch.timestamps.extend(&times[..length]);
        batch.next_timestamps.extend(&times[1..]);
        batch.offsets.push(batch.item_ids.len() as u32);
    }
    batch
}

fn rows<O: Ops>(ops: &mut O, batch: &SequenceBatch) -> Rows<O::Ints> {
    Rows { n_rows: batch.n_rows(), max_length: batch.max_length(), start: ops.ints(&batch.row_starts()) }
}

struct LinearOf {
    rows: usize,
    n_in: usize,
    n_out: usize,
    bias: bool,
    activation: Activation,
    residual: bool,
    dropout: bool,
}

impl Operation for LinearOf {
    fn inputs(&self) -> Vec<Vec<usize>> {
        let LinearOf { rows, n_in, n_out, .. } = *self;
        let mut shapes = vec![vec![rows, n_in], vec![n_in, n_out]];
        shapes.extend(self.bias.then(|| vec![n_out]));
        shapes.extend(self.residual.then(|| vec![rows, n_out]));
        shapes
    }

    fn run<O: Ops>(&self, ops: &mut O, inputs: &[O::Floats]) -> O::Floats {
        let bias = self.bias.then(|| inputs[2].clone());
        let layer = Linear { weight: inputs[1].clone(), bias, n_in: self.n_in, n_out: self.n_out };
        let residual = self.residual.then(|| &inputs[inputs.len() - 1]);
        match residual {
            Some(residual) if self.dropout => {
                let site = DropoutSite::FeedForwardOutput { block: 1 };
                ops.linear_with_dropout(&inputs[0], self.rows, &layer, site, residual)
            }
            residual => ops.linear(&inputs[0], self.rows, &layer, self.activation, residual),
        }
    }
}

#[test]
fn linear() {
    let activations =
        [Activation::Identity, Activation::Silu, Activation::Relu, Activation::Gelu, Activation::GeluTanh];
    for (i, activation) in activations.into_iter().enumerate() {
        let (bias, residual) = (i != 1, i % 2 == 0);
        let layer = LinearOf { rows: 5, n_in: 3, n_out: 4, bias, activation, residual, dropout: false };
        check(&format!("{activation:?}"), layer);
        // Blocks and chunks of rows.
        let layer = LinearOf { rows: 1300, n_in: 3, n_out: 2, bias, activation, residual, dropout: false };
        check_devices(&format!("{activation:?}"), &layer);
    }
    let activation = Activation::Identity;
    check("dropout", LinearOf { rows: 9, n_in: 2, n_out: 5, bias: true, activation, residual: true, dropout: true });
}

/// One array, shaped (rows, width).
struct OfRows<F> {
    rows: usize,
    width: usize,
    f: F,
}

/// A generic function cannot be a value: what is done with an array is one of these.
#[derive(Clone, Copy)]
enum Of {
    LayerNorm,
    L2Norm(f32),
    Glu(Activation),
    Concat,
    Dropout(DropoutSite),
    Gather,
}

impl Operation for OfRows<Of> {
    fn inputs(&self) -> Vec<Vec<usize>> {
        vec![vec![self.rows, self.width]]
    }

    fn run<O: Ops>(&self, ops: &mut O, inputs: &[O::Floats]) -> O::Floats {
        let (x, rows, width) = (&inputs[0], self.rows, self.width);
        match self.f {
            Of::LayerNorm => ops.layer_norm(x, rows, width, 1e-2),
            Of::L2Norm(eps) => ops.l2_norm(x, rows, width, eps),
            Of::Glu(activation) => ops.glu(x, rows, width / 2, activation),
            // Of the same array twice: its gradients are added.
            Of::Concat => {
                let y = ops.layer_norm(x, rows, width, 1e-2);
                ops.concat(&[(x, width), (&y, width), (x, width)], rows)
            }
            Of::Dropout(site) => ops.dropout(x, rows, width, site),
            Of::Gather => {
                let indices = ops.ints(&[1, 0, 1, 1, rows as u32 - 1]);
                ops.gather(x, width, &indices, 5)
            }
        }
    }
}

#[test]
fn operations_on_rows() {
    for (rows, width) in [(3, 2), (2, 8), (4, 18), (300, 6)] {
        let of = |what: &str, f: Of| {
            let operation = OfRows { rows, width, f };
            if rows * width < 100 { check(what, operation) } else { check_devices(what, &operation) }
        };
        of("layer norm", Of::LayerNorm);
        of("l2 norm", Of::L2Norm(0.1));
        of("l2 norm of short rows", Of::L2Norm(30.0));
        for activation in [Activation::Identity, Activation::Silu, Activation::Gelu] {
            of("glu", Of::Glu(activation));
        }
        of("concat", Of::Concat);
        of("dropout", Of::Dropout(DropoutSite::Input));
        of("dropout of rows", Of::Dropout(DropoutSite::Uid { table: 1 }));
        of("gather", Of::Gather);
    }
}

struct Embed(SequenceBatch);

impl Operation for Embed {
    fn inputs(&self) -> Vec<Vec<usize>> {
        vec![vec![6, 3], vec![self.0.max_length() + 1, 3]]
    }

    fn run<O: Ops>(&self, ops: &mut O, inputs: &[O::Floats]) -> O::Floats {
        let (ids, rows) = (ops.ints(&self.0.item_ids), rows(ops, &self.0));
        ops.embed(&inputs[0], &inputs[1], 3, 1.5, &ids, &rows)
    }
}

struct HstuAttentionOf(SequenceBatch, HstuShape);

impl Operation for HstuAttentionOf {
    fn inputs(&self) -> Vec<Vec<usize>> {
        vec![vec![self.0.n_rows(), self.1.uvqk()], vec![2 * self.1.padded_length - 1], vec![129]]
    }

    fn run<O: Ops>(&self, ops: &mut O, inputs: &[O::Floats]) -> O::Floats {
        let rows = rows(ops, &self.0);
        let buckets = ops.time_buckets(&self.0, &rows);
        ops.hstu_attention(&inputs[0], self.1, &rows, &buckets, &inputs[1], &inputs[2])
    }
}

struct HstuGateOf {
    rows: usize,
    shape: HstuShape,
    concat_ua: bool,
}

impl Operation for HstuGateOf {
    fn inputs(&self) -> Vec<Vec<usize>> {
        vec![vec![self.rows, self.shape.uvqk()], vec![self.rows, self.shape.attended()]]
    }

    fn run<O: Ops>(&self, ops: &mut O, inputs: &[O::Floats]) -> O::Floats {
        ops.hstu_gate(&inputs[0], &inputs[1], self.shape, self.rows, 1e-2, self.concat_ua)
    }
}

struct SoftmaxAttentionOf {
    batch: SequenceBatch,
    shape: AttentionShape,
    site: DropoutSite,
}

impl Operation for SoftmaxAttentionOf {
    fn inputs(&self) -> Vec<Vec<usize>> {
        vec![vec![self.batch.n_rows(), self.shape.width], vec![self.batch.n_rows(), 2 * self.shape.width]]
    }

    fn run<O: Ops>(&self, ops: &mut O, inputs: &[O::Floats]) -> O::Floats {
        let rows = rows(ops, &self.batch);
        ops.softmax_attention(&inputs[0], &inputs[1], self.shape, &rows, self.site)
    }
}

struct GruOf {
    batch: SequenceBatch,
    hidden: usize,
    bias: bool,
}

impl Operation for GruOf {
    fn inputs(&self) -> Vec<Vec<usize>> {
        let mut shapes = vec![vec![self.batch.n_rows(), 3 * self.hidden], vec![self.hidden, 3 * self.hidden]];
        shapes.extend(self.bias.then(|| vec![3 * self.hidden]));
        shapes
    }

    fn run<O: Ops>(&self, ops: &mut O, inputs: &[O::Floats]) -> O::Floats {
        let (n_in, n_out) = (self.hidden, 3 * self.hidden);
        // Rows of length 1: bounds must not grow much from step to step.
        let weight = ops.l2_norm(&inputs[1], n_in, n_out, 1e-6);
        let layer = Linear { weight, bias: inputs.get(2).cloned(), n_in, n_out };
        ops.gru(&inputs[0], &layer, &self.batch.offsets)
    }
}

struct AffineLayerNormOf {
    rows: usize,
    width: usize,
    unbiased: bool,
}

impl Operation for AffineLayerNormOf {
    fn inputs(&self) -> Vec<Vec<usize>> {
        vec![vec![self.rows, self.width], vec![self.width], vec![self.width]]
    }

    fn run<O: Ops>(&self, ops: &mut O, inputs: &[O::Floats]) -> O::Floats {
        let (weight, bias) = (inputs[1].clone(), inputs[2].clone());
        let norm = LayerNorm { weight, bias, width: self.width, eps: 1e-2, unbiased: self.unbiased };
        ops.affine_layer_norm(&inputs[0], self.rows, &norm)
    }
}

#[test]
fn layer_norms_with_weights() {
    for unbiased in [false, true] {
        for (rows, width) in [(1, 2), (3, 5), (4, 18)] {
            check(&format!("{rows} {width} {unbiased}"), AffineLayerNormOf { rows, width, unbiased });
        }
        check_devices("many rows", &AffineLayerNormOf { rows: 600, width: 6, unbiased });
    }
}

#[test]
fn operations_on_sequences() {
    // Small ones, and some that end within, at and after a tile.
    for (lengths, is_small) in [(&[1][..], true), (&[4, 1, 3], true), (&[33, 2, 32, 65], false)] {
        let length = lengths.iter().copied().max().unwrap_or_default();
        check(&format!("embed {lengths:?}"), Embed(batch(lengths)));
        for (heads, dqk, dv) in [(1, 3, 2), (2, 2, 3)] {
            let shape = HstuShape { heads, dqk, dv, padded_length: length + 2 };
            let operation = HstuAttentionOf(batch(lengths), shape);
            let what = format!("HSTU {heads} {dqk} {dv} {lengths:?}");
            if is_small { check(&what, operation) } else { check_devices(&what, &operation) }
        }
        for mask in [AttentionMask::Causal, AttentionMask::Bidirectional] {
            for site in [DropoutSite::Attention { block: 2 }, DropoutSite::Query] {
                let shape = AttentionShape { width: 6, heads: 2, mask };
                let what = format!("{mask:?} {lengths:?} {site:?}");
                let operation = SoftmaxAttentionOf { batch: batch(lengths), shape, site };
                if is_small { check(&what, operation) } else { check_devices(&what, &operation) }
            }
        }
        for bias in [false, true] {
            let operation = GruOf { batch: batch(lengths), hidden: 5, bias };
            let what = format!("GRU {lengths:?}");
            if is_small { check(&what, operation) } else { check_devices(&what, &operation) }
        }
    }
    for concat_ua in [false, true] {
        let shape = HstuShape { heads: 2, dqk: 1, dv: 3, padded_length: 9 };
        check("gate", HstuGateOf { rows: 4, shape, concat_ua });
        check_devices("gate", &HstuGateOf { rows: 600, shape, concat_ua });
    }
}

#[test]
fn a_wrong_gradient_is_rejected() {
    let shape = HstuShape { heads: 1, dqk: 2, dv: 2, padded_length: 6 };
    let operation = HstuAttentionOf(batch(&[4, 1, 3]), shape);
    let inputs = tensors(&operation).iter().map(|tensor| Naive.floats(tensor)).collect();
    let (_, mut gradients) = by_definition(&operation, inputs);
    assert!(against_differences(&operation, &gradients).is_ok());
    let found: Vec<f32> = gradients[0].iter().map(|x| x.value as f32).collect();
    for place in [2, 12] {
        let mut wrong = found.clone();
        wrong[place] *= 1.0 + 2e-4;
        let error = compare(&wrong, &gradients[0]).unwrap_err();
        assert!(error.starts_with(&format!("value {place} ")), "{error}");
    }
    let mut values = gradients[1].to_vec();
    values[4].value += 1e-6;
    gradients[1] = Rc::new(values);
    assert!(against_differences(&operation, &gradients).unwrap_err().starts_with("input 1, element 4"));
}

#[test]
fn the_number_of_threads_does_not_show() {
    let shape = HstuShape { heads: 2, dqk: 5, dv: 3, padded_length: 80 };
    let attention = HstuAttentionOf(batch(&[33, 70, 2, 64, 9]), shape);
    let activation = Activation::Silu;
    let layer = LinearOf { rows: 3000, n_in: 7, n_out: 9, bias: true, activation, residual: true, dropout: false };
    let embed = Embed(batch(&[40, 3, 70, 1]));
    let gru = GruOf { batch: batch(&[33, 70, 2, 64, 9, 1]), hidden: 7, bias: true };
    let norm = AffineLayerNormOf { rows: 3000, width: 5, unbiased: false };
    fn bits(operation: &(impl Operation + Sync), threads: usize) -> Vec<u32> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let inputs = tensors(operation).iter().map(|tensor| CpuOps::default().floats(tensor)).collect();
            let seed = |result: &<CpuOps as Ops>::Floats| {
                CpuOps::default().floats(&Tensor::new(vec![result.len()], seed(result.len())).unwrap())
            };
            let (values, gradients) = differentiated(&mut CpuOps::default(), operation, inputs, seed);
            values.iter().chain(gradients.iter().flat_map(|gradient| gradient.iter())).map(|x| x.to_bits()).collect()
        })
    }
    for threads in [2, 3] {
        assert!(bits(&attention, 1) == bits(&attention, threads), "attention, {threads} threads");
        assert!(bits(&layer, 1) == bits(&layer, threads), "linear, {threads} threads");
        assert!(bits(&embed, 1) == bits(&embed, threads), "embed, {threads} threads");
        assert!(bits(&gru, 1) == bits(&gru, threads), "GRU, {threads} threads");
        assert!(bits(&norm, 1) == bits(&norm, threads), "layer norm, {threads} threads");
    }
}
