//! Gradients of the array operations by definition, in f64 with error bounds: what backends are compared with. Finite differences of
//! the operations themselves, which f64 allows, prove these.

use std::rc::Rc;

use rails_wgpu::ops::{
    Activation, AttentionShape, EmbedInputs, GradientOps, GruInputs, HstuAttentionInputs, HstuGateInputs, HstuShape,
    LayerNorm, Linear, LinearGradients, LinearInputs, Ops, SoftmaxAttentionInputs,
};
use rails_wgpu::random::Dropout;

use super::naive::{Naive, Num, dot, exact, sum};

type Floats = Rc<Vec<Num>>;
type Ints = Rc<Vec<u32>>;
type Gradient<'a> = &'a mut Option<Floats>;

/// Terms of each element of a gradient, which are summed in the end.
struct Terms(Vec<Vec<Num>>);

impl Terms {
    fn new(n: usize) -> Terms {
        Terms(vec![Vec::new(); n])
    }

    fn add(&mut self, place: usize, term: Num) {
        self.0[place].push(term);
    }

    fn add_to(self, gradient: Gradient) {
        let sums = self.0.iter().map(|terms| sum(terms.iter().copied())).collect();
        Naive.add(Rc::new(sums), gradient);
    }
}

fn derivative(activation: Activation, x: Num) -> Num {
    match activation {
        Activation::Identity => exact(1.0),
        Activation::Silu => {
            let s = x.sigmoid();
            s + x * s * (exact(1.0) - s)
        }
        // Unless x may be on the other side.
        Activation::Relu if x.value.abs() > x.error => exact(if x.value > 0.0 { 1.0 } else { 0.0 }),
        Activation::Relu => Num { value: if x.value > 0.0 { 1.0 } else { 0.0 }, error: 1.0 },
        Activation::Gelu => {
            // Phi(x) is gelu(x) / x; near 0 the quotient is as good as its limit.
            let cdf = if x.value.abs() > 1e-3 {
                x.activated(Activation::Gelu) / x
            } else {
                exact(0.5) + x * exact(1.0 / std::f64::consts::TAU.sqrt())
            };
            let density = (-(exact(0.5) * x * x)).exp() * exact(1.0 / std::f64::consts::TAU.sqrt());
            let derivative = cdf + x * density;
            Num { error: derivative.error + 2.0 * x.error + 1e-9, ..derivative }
        }
        Activation::GeluTanh => {
            let factor = exact((8.0 / std::f64::consts::PI).sqrt());
            let squared = exact(0.044_715) * x * x;
            let s = (factor * x * (exact(1.0) + squared)).sigmoid();
            s + x * factor * (exact(1.0) + exact(3.0) * squared) * s * (exact(1.0) - s)
        }
    }
}

/// The gradient of a layer norm of one row.
fn layer_norm_gradient(x: &[Num], eps: f32, dy: &[Num]) -> Vec<Num> {
    let n = exact(x.len() as f64);
    let mean = sum(x.iter().copied()) / n;
    let centred: Vec<Num> = x.iter().map(|&x| x - mean).collect();
    let deviation = (sum(centred.iter().map(|&x| x * x)) / n + exact(eps)).sqrt();
    let y: Vec<Num> = centred.iter().map(|&x| x / deviation).collect();
    let mean_dy = sum(dy.iter().copied()) / n;
    let slope = dot(&y, dy.iter().copied()) / n;
    dy.iter().zip(&y).map(|(&dy, &y)| (dy - mean_dy - y * slope) / deviation).collect()
}

fn normalised(x: &[Num], eps: f32) -> Vec<Num> {
    Naive.layer_norm(&Rc::new(x.to_vec()), 1, x.len(), eps).to_vec()
}

fn factor(dropout: Option<Dropout>, element: usize) -> Num {
    match dropout {
        None => exact(1.0),
        Some(dropout) if dropout.keep(element as u64) => exact(1.0) / (exact(1.0) - exact(dropout.rate())),
        Some(_) => exact(0.0),
    }
}

impl GradientOps for Naive {
    fn add(&mut self, part: Floats, gradient: Gradient) {
        *gradient = Some(match gradient.take() {
            None => part,
            Some(sum) => Rc::new(sum.iter().zip(part.iter()).map(|(&sum, &part)| sum + part).collect()),
        });
    }

    fn drop_out(&mut self, x: &Floats, dropout: Dropout, sharing: usize) -> Floats {
        Rc::new(x.iter().enumerate().map(|(i, &x)| x * factor(Some(dropout), i / sharing)).collect())
    }

    fn linear_before_activation(
        &mut self,
        x: &Floats,
        rows: usize,
        layer: &Linear<Floats>,
        activation: Activation,
        residual: Option<&Floats>,
    ) -> (Floats, Floats) {
        (self.linear(x, rows, layer, activation, residual), self.linear(x, rows, layer, Activation::Identity, None))
    }

    fn softmax_attention_with(&mut self, inputs: &SoftmaxAttentionInputs<Floats, Ints>) -> Floats {
        let AttentionShape { width, heads, .. } = inputs.shape;
        let d = width / heads;
        let cell = |i: usize| {
            let (row, head, column) = (i / width, i % width / d, i % d);
            let start = inputs.rows.start[row] as usize;
            let weights = dropped_probabilities(inputs, row, head).1;
            let value = |j: usize| inputs.kv[(start + j) * 2 * width + width + head * d + column];
            dot(&weights, (0..weights.len()).map(value))
        };
        Rc::new((0..inputs.rows.n_rows * width).map(cell).collect())
    }

    fn gather_gradient(&mut self, table: &Floats, width: usize, indices: &Ints, dy: &Floats, gradient: Gradient) {
        let mut terms = Terms::new(table.len());
        for (i, &dy) in dy.iter().enumerate() {
            terms.add(indices[i / width] as usize * width + i % width, dy);
        }
        terms.add_to(gradient);
    }

    fn embed_gradient(&mut self, inputs: &EmbedInputs<Floats, Ints>, dy: &Floats, [items, positions]: [Gradient; 2]) {
        let (mut of_items, mut of_positions) = (Terms::new(inputs.items.len()), Terms::new(inputs.positions.len()));
        for (i, &dy) in dy.iter().enumerate() {
            let (row, column) = (i / inputs.width, i % inputs.width);
            of_items.add(inputs.ids[row] as usize * inputs.width + column, exact(inputs.scale) * dy);
            of_positions.add((row - inputs.rows.start[row] as usize) * inputs.width + column, dy);
        }
        of_items.add_to(items);
        of_positions.add_to(positions);
    }

    fn linear_gradient(&mut self, inputs: &LinearInputs<Floats>, dy: &Floats, into: LinearGradients<Floats>) {
        let (n_in, n_out) = (inputs.layer.n_in, inputs.layer.n_out);
        let mut d = dy.to_vec();
        if inputs.activation != Activation::Identity {
            d.iter_mut()
                .zip(inputs.before_activation.iter())
                .for_each(|(d, &x)| *d = *d * derivative(inputs.activation, x));
        }
        let rows = |values: &[Num], width: usize, column: usize| -> Vec<Num> {
            values.iter().skip(column).step_by(width).copied().collect()
        };
        let dx = (0..inputs.rows * n_in).map(|i| {
            dot(&d[i / n_in * n_out..][..n_out], inputs.layer.weight[i % n_in * n_out..][..n_out].iter().copied())
        });
        self.add(Rc::new(dx.collect()), into.x);
        let weight =
            (0..n_in * n_out).map(|i| dot(&rows(inputs.x, n_in, i / n_out), rows(&d, n_out, i % n_out).into_iter()));
        self.add(Rc::new(weight.collect()), into.weight);
        if inputs.layer.bias.is_some() {
            self.add(Rc::new((0..n_out).map(|i| sum(rows(&d, n_out, i).into_iter())).collect()), into.bias);
        }
    }

    fn layer_norm_gradient(&mut self, x: &Floats, width: usize, eps: f32, dy: &Floats, gradient: Gradient) {
        let rows = x.chunks_exact(width).zip(dy.chunks_exact(width));
        let dx = rows.flat_map(|(x, dy)| layer_norm_gradient(x, eps, dy)).collect();
        self.add(Rc::new(dx), gradient);
    }

    fn affine_layer_norm_gradient(
        &mut self,
        x: &Floats,
        norm: &LayerNorm<Floats>,
        dy: &Floats,
        [of_x, weight, bias]: [Gradient; 3],
    ) {
        let width = norm.width;
        let (mut of_weight, mut of_bias, mut dx) = (Terms::new(width), Terms::new(width), Vec::new());
        for (x, dy) in x.chunks_exact(width).zip(dy.chunks_exact(width)) {
            let n = exact(width as f64);
            let mean = sum(x.iter().copied()) / n;
            let centred: Vec<Num> = x.iter().map(|&x| x - mean).collect();
            let squares = sum(centred.iter().map(|&x| x * x));
            // The divisor, and its derivative by a number of x, divided by that number's distance from the mean.
            let (deviation, slope) = match norm.unbiased {
                true => {
                    let unbiased = (squares / (n - exact(1.0))).sqrt();
                    (unbiased + exact(norm.eps), exact(1.0) / (unbiased * (n - exact(1.0))))
                }
                false => {
                    let deviation = (squares / n + exact(norm.eps)).sqrt();
                    (deviation, exact(1.0) / (deviation * n))
                }
            };
            let weighted: Vec<Num> = dy.iter().zip(norm.weight.iter()).map(|(&dy, &weight)| dy * weight).collect();
            let mean_dy = sum(weighted.iter().copied()) / n;
            let along = dot(&weighted, centred.iter().copied()) * slope / deviation;
            for i in 0..width {
                of_weight.add(i, dy[i] * centred[i] / deviation);
                of_bias.add(i, dy[i]);
                dx.push((weighted[i] - mean_dy - centred[i] * along) / deviation);
            }
        }
        self.add(Rc::new(dx), of_x);
        of_weight.add_to(weight);
        of_bias.add_to(bias);
    }

    fn l2_norm_gradient(&mut self, x: &Floats, width: usize, eps: f32, dy: &Floats, gradient: Gradient) {
        let row = |(x, dy): (&[Num], &[Num])| {
            let norm = sum(x.iter().map(|&x| x * x)).sqrt();
            let slope = if norm.value > f64::from(eps) { dot(x, dy.iter().copied()) / norm / norm } else { exact(0.0) };
            let norm = norm.max(exact(eps));
            x.iter().zip(dy).map(|(&x, &dy)| (dy - x * slope) / norm).collect::<Vec<_>>()
        };
        let dx = x.chunks_exact(width).zip(dy.chunks_exact(width)).flat_map(row).collect();
        self.add(Rc::new(dx), gradient);
    }

    fn glu_gradient(&mut self, x: &Floats, hidden: usize, activation: Activation, dy: &Floats, gradient: Gradient) {
        let cell = |i: usize| {
            let (row, column) = (i / (2 * hidden), i % (2 * hidden));
            let (x, dy) = (&x[row * 2 * hidden..], &dy[row * hidden..]);
            match column.checked_sub(hidden) {
                None => dy[column] * x[hidden + column] * derivative(activation, x[column]),
                Some(column) => dy[column] * x[column].activated(activation),
            }
        };
        self.add(Rc::new((0..x.len()).map(cell).collect()), gradient);
    }

    fn concat_gradient(&mut self, dy: &Floats, total: usize, first: usize, width: usize, gradient: Gradient) {
        let rows = dy.chunks_exact(total).flat_map(|dy| dy[first..first + width].to_vec());
        self.add(Rc::new(rows.collect()), gradient);
    }

    fn hstu_attention_gradient(
        &mut self,
        inputs: &HstuAttentionInputs<Floats, Ints>,
        dy: &Floats,
        [uvqk, pos_w, ts_w]: [Gradient; 3],
    ) {
        let HstuShape { heads, dqk, dv, padded_length } = inputs.shape;
        let stride = inputs.shape.uvqk();
        let n = exact(padded_length as f64);
        let x = inputs.uvqk;
        let (mut of_uvqk, mut of_pos, mut of_ts) =
            (Terms::new(x.len()), Terms::new(inputs.pos_w.len()), Terms::new(inputs.ts_w.len()));
        for i in 0..inputs.rows.n_rows {
            let start = inputs.rows.start[i] as usize;
            for (head, j) in (0..heads).flat_map(|head| (start..=i).map(move |j| (head, j))) {
                let v = j * stride + (heads + head) * dv;
                let (q, k) = (2 * heads * dv + head * dqk, 2 * heads * dv + (heads + head) * dqk);
                let (q, k) = (i * stride + q, j * stride + k);
                let (pos, ts) =
                    (padded_length - 1 + j - i, inputs.buckets[i * inputs.rows.max_length + j - start] as usize);
                let argument = dot(&x[q..q + dqk], x[k..k + dqk].iter().copied()) + inputs.pos_w[pos] + inputs.ts_w[ts];
                let dy = &dy[(i * heads + head) * dv..][..dv];
                let weight = argument.silu() / n;
                let d_weight = dot(dy, x[v..v + dv].iter().copied());
                let d = d_weight * derivative(Activation::Silu, argument) / n;
                (0..dv).for_each(|c| of_uvqk.add(v + c, weight * dy[c]));
                (0..dqk).for_each(|c| of_uvqk.add(q + c, d * x[k + c]));
                (0..dqk).for_each(|c| of_uvqk.add(k + c, d * x[q + c]));
                of_pos.add(pos, d);
                of_ts.add(ts, d);
            }
        }
        of_uvqk.add_to(uvqk);
        of_pos.add_to(pos_w);
        of_ts.add_to(ts_w);
    }

    fn hstu_gate_gradient(&mut self, inputs: &HstuGateInputs<Floats>, dy: &Floats, [uvqk, attended]: [Gradient; 2]) {
        let (width, stride) = (inputs.shape.attended(), inputs.shape.uvqk());
        let parts = if inputs.concat_ua { 3 } else { 1 };
        let mut of_uvqk = Terms::new(inputs.uvqk.len());
        let mut of_attended = Vec::new();
        for (row, x) in inputs.attended.chunks_exact(width).enumerate() {
            let a = normalised(x, inputs.eps);
            let dy = &dy[row * parts * width..][..parts * width];
            let product = &dy[(parts - 1) * width..];
            let mut da = Vec::new();
            for i in 0..width {
                of_uvqk.add(row * stride + i, product[i] * a[i]);
                let u = inputs.uvqk[row * stride + i];
                da.push(if inputs.concat_ua { product[i] * u + dy[width + i] } else { product[i] * u });
                if inputs.concat_ua {
                    of_uvqk.add(row * stride + i, dy[i]);
                }
            }
            of_attended.extend(layer_norm_gradient(x, inputs.eps, &da));
        }
        of_uvqk.add_to(uvqk);
        self.add(Rc::new(of_attended), attended);
    }

    fn softmax_attention_gradient(
        &mut self,
        inputs: &SoftmaxAttentionInputs<Floats, Ints>,
        dy: &Floats,
        [q, kv]: [Gradient; 2],
    ) {
        let AttentionShape { width, heads, .. } = inputs.shape;
        let d = width / heads;
        let scale = exact(1.0) / exact(d as f64).sqrt();
        let (mut of_q, mut of_kv) = (Terms::new(inputs.q.len()), Terms::new(inputs.kv.len()));
        for (row, head) in (0..inputs.rows.n_rows).flat_map(|row| (0..heads).map(move |head| (row, head))) {
            let start = inputs.rows.start[row] as usize;
            let (p, dropped, factors) = dropped_probabilities(inputs, row, head);
            let dy = &dy[row * width + head * d..][..d];
            let key = |j: usize| (start + j) * 2 * width + head * d;
            let of_dropped = |j: usize| dot(dy, inputs.kv[key(j) + width..][..d].iter().copied());
            let of_p: Vec<Num> = (0..p.len()).map(|j| of_dropped(j) * factors[j]).collect();
            let mean = dot(&of_p, p.iter().copied());
            for j in 0..p.len() {
                let of_logit = p[j] * (of_p[j] - mean) * scale;
                for (c, &dy) in dy.iter().enumerate() {
                    of_kv.add(key(j) + width + c, dropped[j] * dy);
                    of_kv.add(key(j) + c, of_logit * inputs.q[row * width + head * d + c]);
                    of_q.add(row * width + head * d + c, of_logit * inputs.kv[key(j) + c]);
                }
            }
        }
        of_q.add_to(q);
        of_kv.add_to(kv);
    }

    fn gru_gradient(&mut self, inputs: &GruInputs<Floats>, dy: &Floats, gradients: LinearGradients<Floats>) {
        let (hidden, recurrent) = (inputs.recurrent.n_in, inputs.recurrent);
        let mut of_x = vec![exact(0.0); inputs.x.len()];
        let mut of_weight = Terms::new(recurrent.weight.len());
        let mut of_bias = Terms::new(3 * hidden);
        for pair in inputs.offsets.windows(2) {
            let mut of_state = vec![exact(0.0); hidden];
            for row in (pair[0] as usize..pair[1] as usize).rev() {
                let before = match row == pair[0] as usize {
                    true => vec![exact(0.0); hidden],
                    false => inputs.states[(row - 1) * hidden..row * hidden].to_vec(),
                };
                let added = self.linear(&Rc::new(before.clone()), 1, recurrent, Activation::Identity, None);
                let x = &inputs.x[row * 3 * hidden..][..3 * hidden];
                let mut of_added = vec![exact(0.0); 3 * hidden];
                for i in 0..hidden {
                    let r = (x[i] + added[i]).sigmoid();
                    let z = (x[hidden + i] + added[hidden + i]).sigmoid();
                    let n = (x[2 * hidden + i] + r * added[2 * hidden + i]).tanh();
                    let d = of_state[i] + dy[row * hidden + i];
                    let of_n = d * (exact(1.0) - z) * (exact(1.0) - n * n);
                    of_added[i] = of_n * added[2 * hidden + i] * r * (exact(1.0) - r);
                    of_added[hidden + i] = d * (before[i] - n) * z * (exact(1.0) - z);
                    of_added[2 * hidden + i] = of_n * r;
                    of_x[row * 3 * hidden + i] = of_added[i];
                    of_x[row * 3 * hidden + hidden + i] = of_added[hidden + i];
                    of_x[row * 3 * hidden + 2 * hidden + i] = of_n;
                    of_state[i] = d * z;
                }
                for i in 0..hidden {
                    let weights = &recurrent.weight[i * 3 * hidden..][..3 * hidden];
                    of_state[i] = of_state[i] + dot(&of_added, weights.iter().copied());
                    (0..3 * hidden).for_each(|j| of_weight.add(i * 3 * hidden + j, before[i] * of_added[j]));
                }
                (0..3 * hidden).for_each(|j| of_bias.add(j, of_added[j]));
            }
        }
        self.add(Rc::new(of_x), gradients.x);
        of_weight.add_to(gradients.weight);
        if recurrent.bias.is_some() {
            of_bias.add_to(gradients.bias);
        }
    }
}

/// Of a row and head: probabilities, the same after dropout, and what dropout multiplies by.
fn dropped_probabilities(
    inputs: &SoftmaxAttentionInputs<Floats, Ints>,
    row: usize,
    head: usize,
) -> (Vec<Num>, Vec<Num>, Vec<Num>) {
    let AttentionShape { width, heads, mask } = inputs.shape;
    let (d, starts) = (width / heads, &inputs.rows.start);
    let (start, end) = (starts[row] as usize, starts.partition_point(|&start| start <= starts[row]));
    let q = &inputs.q[row * width + head * d..][..d];
    let logit = |j: usize| dot(q, inputs.kv[j * 2 * width + head * d..][..d].iter().copied()) / exact(d as f64).sqrt();
    let logits: Vec<Num> = (start..start + mask.attended(row - start, end - start)).map(logit).collect();
    let largest = logits.iter().copied().fold(exact(f64::MIN), Num::max);
    let weights: Vec<Num> = logits.iter().map(|&logit| (logit - largest).exp()).collect();
    let total = sum(weights.iter().copied());
    let probabilities: Vec<Num> = weights.iter().map(|&weight| weight / total).collect();
    let stride = inputs.rows.max_length.next_multiple_of(64);
    let first = (row * heads + head) * stride;
    let factors: Vec<Num> = (0..probabilities.len()).map(|j| factor(inputs.dropout, first + j)).collect();
    let dropped = probabilities.iter().zip(&factors).map(|(&p, &factor)| p * factor).collect();
    (probabilities, dropped, factors)
}
