//! Gradients of the array operations by definition, in f64 with error bounds: what backends are compared with. Finite differences of
//! the operations themselves, which f64 allows, prove these.

use std::rc::Rc;

use rails_wgpu::ops::{
    Activation, CausalAttentionInputs, EmbedInputs, GradientOps, HstuAttentionInputs, HstuGateInputs, HstuShape,
    Linear, LinearGradients, LinearInputs, Ops,
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

fn sigmoid(x: Num) -> Num {
    exact(1.0) / (exact(1.0) + (-x).exp())
}

fn derivative(activation: Activation, x: Num) -> Num {
    match activation {
        Activation::Identity => exact(1.0),
        Activation::Silu => {
            let s = sigmoid(x);
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

    fn causal_attention_with(&mut self, inputs: &CausalAttentionInputs<Floats, Ints>) -> Floats {
        let d = inputs.width / inputs.heads;
        let cell = |i: usize| {
            let (row, head, column) = (i / inputs.width, i % inputs.width / d, i % d);
            let start = inputs.rows.start[row] as usize;
            let weights = dropped_probabilities(inputs, row, head).1;
            let value = |j: usize| inputs.kv[(start + j) * 2 * inputs.width + inputs.width + head * d + column];
            dot(&weights, (0..weights.len()).map(value))
        };
        Rc::new((0..inputs.rows.n_rows * inputs.width).map(cell).collect())
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

    fn causal_attention_gradient(
        &mut self,
        inputs: &CausalAttentionInputs<Floats, Ints>,
        dy: &Floats,
        [q, kv]: [Gradient; 2],
    ) {
        let (width, d) = (inputs.width, inputs.width / inputs.heads);
        let scale = exact(1.0) / exact(d as f64).sqrt();
        let (mut of_q, mut of_kv) = (Terms::new(inputs.q.len()), Terms::new(inputs.kv.len()));
        for (row, head) in (0..inputs.rows.n_rows).flat_map(|row| (0..inputs.heads).map(move |head| (row, head))) {
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
}

/// Of a row and head: probabilities, the same after dropout, and what dropout multiplies by.
fn dropped_probabilities(
    inputs: &CausalAttentionInputs<Floats, Ints>,
    row: usize,
    head: usize,
) -> (Vec<Num>, Vec<Num>, Vec<Num>) {
    let (width, d, start) = (inputs.width, inputs.width / inputs.heads, inputs.rows.start[row] as usize);
    let q = &inputs.q[row * width + head * d..][..d];
    let logit = |j: usize| dot(q, inputs.kv[j * 2 * width + head * d..][..d].iter().copied()) / exact(d as f64).sqrt();
    let logits: Vec<Num> = (start..=row).map(logit).collect();
    let largest = logits.iter().copied().fold(exact(f64::MIN), Num::max);
    let weights: Vec<Num> = logits.iter().map(|&logit| (logit - largest).exp()).collect();
    let total = sum(weights.iter().copied());
    let probabilities: Vec<Num> = weights.iter().map(|&weight| weight / total).collect();
    let stride = inputs.rows.max_length.next_multiple_of(64);
    let first = (row * inputs.heads + head) * stride;
    let factors: Vec<Num> = (0..probabilities.len()).map(|j| factor(inputs.dropout, first + j)).collect();
    let dropped = probabilities.iter().zip(&factors).map(|(&p, &factor)| p * factor).collect();
    (probabilities, dropped, factors)
}
