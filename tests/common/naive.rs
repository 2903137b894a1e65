//! The array operations by definition, in f64, each value with a bound of the error that f32 arithmetic may make.
//! Never optimised: this is what backends are compared with.

use std::ops::{Add, Div, Mul, Neg, Sub};
use std::rc::Rc;

use rails_wgpu::ops::{Activation, AttentionShape, DropoutSite, HstuShape, LayerNorm, Linear, Ops, Rows};
use rails_wgpu::sequence::{SequenceBatch, time_bucket};
use rails_wgpu::tensor::Tensor;

const EPS: f64 = f32::EPSILON as f64;

/// A value and how far an f32 computation of it may be off.
#[derive(Clone, Copy, Debug)]
pub struct Num {
    pub value: f64,
    pub error: f64,
}

/// An exact value.
pub fn exact(value: impl Into<f64>) -> Num {
    Num { value: value.into(), error: 0.0 }
}

impl Num {
    /// This value after `ulps` roundings.
    fn rounded(self, ulps: f64) -> Num {
        Num { error: self.error + ulps * EPS * self.value.abs(), ..self }
    }

    /// WGSL allows 3 + 2 |x| units in the last place, and flushes subnormal results.
    pub fn exp(self) -> Num {
        let value = self.value.exp();
        Num { value, error: value * self.error.exp_m1() + 1e-37 }.rounded(3.0 + 2.0 * self.value.abs())
    }

    pub fn sqrt(self) -> Num {
        let value = self.value.max(0.0).sqrt();
        let lowest = (self.value - self.error).max(0.0).sqrt();
        Num { value, error: value - lowest }.rounded(3.0)
    }

    pub fn max(self, other: Num) -> Num {
        Num { value: self.value.max(other.value), error: self.error.max(other.error) }
    }

    pub fn silu(self) -> Num {
        self / (exact(1.0) + (-self).exp())
    }

    /// x Phi(x), with Phi(x) = 1/2 + density(x) (x + x^3 / 3 + x^5 / (3 * 5) + ...). The tail may be off by 3e-7 of
    /// itself (see activation.wgsl) beside the error of its exponential; Phi grows by less than 0.4 x.
    fn gelu(self) -> Num {
        let x = self.value;
        let terms = (1..200).scan(x, |term, k| {
            let this = *term;
            *term *= x * x / (2 * k + 1) as f64;
            Some(this)
        });
        let value = 0.5 + (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt() * terms.sum::<f64>();
        let tail = value.min(1.0 - value).abs();
        let cdf = Num { value, error: 0.4 * self.error + tail * (3e-7 + (5.0 + 2.0 * x * x) * EPS) + 1e-16 };
        self * cdf.rounded(1.0)
    }

    pub fn sigmoid(self) -> Num {
        exact(1.0) / (exact(1.0) + (-self).exp())
    }

    /// As backends compute it, so that the bound is theirs: precise beside 1, not beside a small tanh.
    pub fn tanh(self) -> Num {
        let value = self.value.tanh();
        Num { value, ..exact(2.0) * (exact(2.0) * self).sigmoid() - exact(1.0) }
    }

    fn gelu_tanh(self) -> Num {
        let cubed = exact(0.044_715) * self * self * self;
        self * (exact(2.0 * (2.0 / std::f64::consts::PI).sqrt()) * (self + cubed)).rounded(2.0).sigmoid()
    }

    pub fn activated(self, activation: Activation) -> Num {
        match activation {
            Activation::Identity => self,
            Activation::Silu => self.silu(),
            Activation::Relu => self.max(exact(0.0)),
            Activation::Gelu => self.gelu(),
            Activation::GeluTanh => self.gelu_tanh(),
        }
    }
}

impl Neg for Num {
    type Output = Num;
    fn neg(self) -> Num {
        Num { value: -self.value, ..self }
    }
}

impl Add for Num {
    type Output = Num;
    fn add(self, other: Num) -> Num {
        Num { value: self.value + other.value, error: self.error + other.error }.rounded(1.0)
    }
}

impl Sub for Num {
    type Output = Num;
    fn sub(self, other: Num) -> Num {
        self + -other
    }
}

impl Mul for Num {
    type Output = Num;
    fn mul(self, other: Num) -> Num {
        let error = self.error * (other.value.abs() + other.error) + other.error * self.value.abs();
        Num { value: self.value * other.value, error }.rounded(1.0)
    }
}

impl Div for Num {
    type Output = Num;
    fn div(self, other: Num) -> Num {
        let value = self.value / other.value;
        let error = (self.error + value.abs() * other.error) / (other.value.abs() - other.error).max(1e-300);
        Num { value, error }.rounded(3.0)
    }
}

/// A sum of n terms in any order: at most 2 n roundings (the second one for rescaled partial sums) of the sum of their
/// magnitudes.
pub fn sum(terms: impl Iterator<Item = Num> + Clone) -> Num {
    let magnitude: f64 = terms.clone().map(|term| term.value.abs()).sum();
    let error: f64 = terms.clone().map(|term| term.error).sum();
    Num {
        value: terms.clone().map(|term| term.value).sum(),
        error: error + 2.0 * terms.count() as f64 * EPS * magnitude,
    }
}

pub fn dot(x: &[Num], y: impl Iterator<Item = Num> + Clone) -> Num {
    sum(x.iter().zip(y).map(|(&x, y)| x * y))
}

fn layer_norm(row: &[Num], eps: f32) -> Vec<Num> {
    let n = exact(row.len() as f64);
    let mean = sum(row.iter().copied()) / n;
    let centred: Vec<Num> = row.iter().map(|&x| x - mean).collect();
    let deviation = (sum(centred.iter().map(|&x| x * x)) / n + exact(eps)).sqrt();
    centred.iter().map(|&x| x / deviation).collect()
}

fn l2_norm(row: &[Num], eps: f32) -> Vec<Num> {
    let norm = sum(row.iter().map(|&x| x * x)).sqrt().max(exact(eps));
    row.iter().map(|&x| x / norm).collect()
}

/// The operations.
pub struct Naive;

type Floats = Rc<Vec<Num>>;
type Ints = Rc<Vec<u32>>;

fn by_rows(x: &Floats, width: usize, row: impl FnMut(&[Num]) -> Vec<Num>) -> Floats {
    Rc::new(x.chunks_exact(width).flat_map(row).collect())
}

impl Ops for Naive {
    type Floats = Floats;
    type Ints = Ints;

    fn floats(&mut self, tensor: &Tensor) -> Floats {
        Rc::new(tensor.data().iter().map(|&value| exact(value)).collect())
    }

    fn ints(&mut self, values: &[u32]) -> Ints {
        Rc::new(values.to_vec())
    }

    fn read(&mut self, array: &Floats) -> rails_wgpu::Result<Vec<f32>> {
        Ok(array.iter().map(|num| num.value as f32).collect())
    }

    fn gather(&mut self, table: &Floats, width: usize, indices: &Ints, _rows: usize) -> Floats {
        Rc::new(indices.iter().flat_map(|&i| table[i as usize * width..][..width].to_vec()).collect())
    }

    fn embed(
        &mut self,
        items: &Floats,
        positions: &Floats,
        width: usize,
        scale: f32,
        ids: &Ints,
        rows: &Rows<Ints>,
    ) -> Floats {
        let cell = |i: usize| {
            let (row, column) = (i / width, i % width);
            exact(scale) * items[ids[row] as usize * width + column]
                + positions[(row - rows.start[row] as usize) * width + column]
        };
        Rc::new((0..rows.n_rows * width).map(cell).collect())
    }

    fn linear(
        &mut self,
        x: &Floats,
        rows: usize,
        layer: &Linear<Floats>,
        activation: Activation,
        residual: Option<&Floats>,
    ) -> Floats {
        let cell = |i: usize| {
            let (row, column) = (i / layer.n_out, i % layer.n_out);
            let weights = layer.weight.iter().skip(column).step_by(layer.n_out).copied();
            let y = dot(&x[row * layer.n_in..][..layer.n_in], weights);
            let y = layer.bias.as_ref().map_or(y, |bias| y + bias[column]).activated(activation);
            residual.map_or(y, |residual| y + residual[i])
        };
        Rc::new((0..rows * layer.n_out).map(cell).collect())
    }

    fn layer_norm(&mut self, x: &Floats, _rows: usize, width: usize, eps: f32) -> Floats {
        by_rows(x, width, |row| layer_norm(row, eps))
    }

    fn affine_layer_norm(&mut self, x: &Floats, _rows: usize, norm: &LayerNorm<Floats>) -> Floats {
        let n = norm.width as f64;
        by_rows(x, norm.width, |row| {
            let mean = sum(row.iter().copied()) / exact(n);
            let centred: Vec<Num> = row.iter().map(|&x| x - mean).collect();
            let squares = sum(centred.iter().map(|&x| x * x));
            let deviation = match norm.unbiased {
                true => (squares / exact(n - 1.0)).sqrt() + exact(norm.eps),
                false => (squares / exact(n) + exact(norm.eps)).sqrt(),
            };
            (0..norm.width).map(|i| centred[i] / deviation * norm.weight[i] + norm.bias[i]).collect()
        })
    }

    fn l2_norm(&mut self, x: &Floats, _rows: usize, width: usize, eps: f32) -> Floats {
        by_rows(x, width, |row| l2_norm(row, eps))
    }

    fn glu(&mut self, x: &Floats, _rows: usize, hidden: usize, activation: Activation) -> Floats {
        by_rows(x, 2 * hidden, |row| (0..hidden).map(|i| row[i].activated(activation) * row[hidden + i]).collect())
    }

    fn concat(&mut self, parts: &[(&Floats, usize)], rows: usize) -> Floats {
        let row = |row: usize| parts.iter().flat_map(move |(part, width)| &part[row * width..][..*width]);
        Rc::new((0..rows).flat_map(row).copied().collect())
    }

    /// (rows, max_length): the bucket of row and earlier row `start + column`.
    fn time_buckets(&mut self, batch: &SequenceBatch, rows: &Rows<Ints>) -> Ints {
        let mut buckets = vec![0; rows.n_rows * rows.max_length];
        for i in 0..rows.n_rows {
            for j in rows.start[i] as usize..=i {
                let difference = batch.next_timestamps[i].abs_diff(batch.timestamps[j]);
                buckets[i * rows.max_length + j - rows.start[i] as usize] = time_bucket(difference);
            }
        }
        Rc::new(buckets)
    }

    fn hstu_attention(
        &mut self,
        uvqk: &Floats,
        shape: HstuShape,
        rows: &Rows<Ints>,
        buckets: &Ints,
        pos_w: &Floats,
        ts_w: &Floats,
    ) -> Floats {
        let HstuShape { heads, dqk, dv, padded_length } = shape;
        let part = |row: usize, first: usize, width: usize| &uvqk[row * shape.uvqk() + first..][..width];
        let row_and_head = |i: usize, head: usize| {
            let start = rows.start[i] as usize;
            let weight = |j: usize| {
                let q = part(i, 2 * heads * dv + head * dqk, dqk);
                let k = part(j, 2 * heads * dv + heads * dqk + head * dqk, dqk);
                let bucket = buckets[i * rows.max_length + j - start] as usize;
                let bias = pos_w[padded_length - 1 + j - i] + ts_w[bucket];
                (dot(q, k.iter().copied()) + bias).silu() / exact(padded_length as f64)
            };
            let weights: Vec<Num> = (start..=i).map(weight).collect();
            let value = |j: usize, column: usize| part(j, heads * dv + head * dv, dv)[column];
            (0..dv).map(|column| dot(&weights, (start..=i).map(|j| value(j, column)))).collect::<Vec<_>>()
        };
        Rc::new((0..rows.n_rows * heads).flat_map(|cell| row_and_head(cell / heads, cell % heads)).collect())
    }

    fn hstu_gate(
        &mut self,
        uvqk: &Floats,
        attended: &Floats,
        shape: HstuShape,
        n_rows: usize,
        eps: f32,
        concat_ua: bool,
    ) -> Floats {
        let width = shape.attended();
        let row = |row: usize| {
            let u = &uvqk[row * shape.uvqk()..][..width];
            let a = layer_norm(&attended[row * width..][..width], eps);
            let ua = u.iter().zip(&a).map(|(&u, &a)| u * a).collect();
            if concat_ua { [u.to_vec(), a, ua].concat() } else { ua }
        };
        Rc::new((0..n_rows).flat_map(row).collect())
    }

    fn softmax_attention(
        &mut self,
        q: &Floats,
        kv: &Floats,
        shape: AttentionShape,
        rows: &Rows<Ints>,
        _: DropoutSite,
    ) -> Floats {
        let AttentionShape { width, heads, mask } = shape;
        let d = width / heads;
        let row_and_head = |i: usize, head: usize| {
            let (start, end) = (rows.start[i] as usize, rows.start.partition_point(|&start| start <= rows.start[i]));
            let attended = start..start + mask.attended(i - start, end - start);
            let logit = |j: usize| {
                let k = &kv[j * 2 * width + head * d..][..d];
                dot(&q[i * width + head * d..][..d], k.iter().copied()) / exact(d as f64).sqrt()
            };
            let logits: Vec<Num> = attended.clone().map(logit).collect();
            let largest = logits.iter().copied().fold(exact(f64::MIN), Num::max);
            let weights: Vec<Num> = logits.iter().map(|&logit| (logit - largest).exp()).collect();
            let total = sum(weights.iter().copied());
            let value = |j: usize, column: usize| kv[j * 2 * width + width + head * d + column];
            let column = |column| dot(&weights, attended.clone().map(|j| value(j, column))) / total;
            (0..d).map(column).collect::<Vec<_>>()
        };
        Rc::new((0..rows.n_rows * heads).flat_map(|cell| row_and_head(cell / heads, cell % heads)).collect())
    }

    fn gru(&mut self, x: &Floats, recurrent: &Linear<Floats>, offsets: &[u32]) -> Floats {
        let hidden = recurrent.n_in;
        let mut states: Vec<Num> = Vec::new();
        for row in 0..x.len() / (3 * hidden) {
            let before = match offsets.contains(&(row as u32)) {
                true => vec![exact(0.0); hidden],
                false => states[(row - 1) * hidden..].to_vec(),
            };
            let of_state = self.linear(&Rc::new(before.clone()), 1, recurrent, Activation::Identity, None);
            let x = &x[row * 3 * hidden..][..3 * hidden];
            states.extend((0..hidden).map(|i| {
                let reset = (x[i] + of_state[i]).sigmoid();
                let update = (x[hidden + i] + of_state[hidden + i]).sigmoid();
                let candidate = (x[2 * hidden + i] + reset * of_state[2 * hidden + i]).tanh();
                (exact(1.0) - update) * candidate + update * before[i]
            }));
        }
        Rc::new(states)
    }
}

/// Says where `found` is off by more than the bound, if anywhere.
pub fn compare(found: &[f32], expected: &[Num]) -> Result<(), String> {
    if found.len() != expected.len() {
        return Err(format!("{} values instead of {}", found.len(), expected.len()));
    }
    // A NaN is within no bound.
    let within = |(&x, num): (&f32, &Num)| (f64::from(x) - num.value).abs() <= num.error;
    match found.iter().zip(expected).position(|pair| !within(pair)) {
        None => Ok(()),
        Some(i) => Err(format!("value {i} of {}: {} instead of {:?}", found.len(), found[i], expected[i])),
    }
}

/// `n` values, uniform in -1..1, the same for the same seed.
pub fn random(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}
