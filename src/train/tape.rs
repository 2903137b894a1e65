//! Operations that are recorded while they run, so that they can be run backwards.

use crate::Result;
use crate::ops::{
    Activation, AttentionShape, DropoutSite, EmbedInputs, GradientOps, GruInputs, HstuAttentionInputs, HstuGateInputs,
    HstuShape, LayerNorm, Linear, LinearGradients, LinearInputs, Ops, Rows, SoftmaxAttentionInputs,
};
use crate::sequence::SequenceBatch;
use crate::tensor::Tensor;
use crate::train::Masks;

/// An array of a tape. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Node<F> {
    values: F,
    number: usize,
}

impl<F> Node<F> {
    /// The array itself, on the device.
    pub fn values(&self) -> &F {
        &self.values
    }
}

/// The third implementor of [`Ops`] beside the CPU and the GPU: runs every operation on one of these at once and remembers it;
/// [`Tape::backward`] computes the gradients.
///
/// ```
/// use rails_wgpu::Tensor;
/// use rails_wgpu::backend::cpu::CpuOps;
/// use rails_wgpu::ops::Ops;
/// use rails_wgpu::train::{Masks, Tape};
///
/// # fn main() -> rails_wgpu::Result<()> {
/// let ops = &mut CpuOps::default();
/// let mut tape = Tape::new(ops, Masks::none());
/// let x = tape.floats(&Tensor::from_rows([[3.0, 4.0]]));
/// let y = tape.l2_norm(&x, 1, 2, 1e-6);
/// assert_eq!(tape.read(&y)?, [0.6, 0.8]);
///
/// // The gradient of y[0] with respect to x: (1 - 0.6^2, -0.6 * 0.8) / 5.
/// let seed = tape.floats(&Tensor::from_rows([[1.0, 0.0]])).values().clone();
/// let mut gradients = tape.backward(vec![(y, seed)]);
/// let dx = gradients.take(&x).expect("y depends on x");
/// assert!((dx[0] - 0.128).abs() < 1e-6 && (dx[1] + 0.096).abs() < 1e-6);
/// # Ok(())
/// # }
/// ```
pub struct Tape<'a, B: GradientOps> {
    ops: &'a mut B,
    masks: Masks,
    records: Vec<Record<B>>,
    n_nodes: usize,
}

/// An operation that has run: adds to the gradients of what it has read, given the gradient of its result.
struct Record<B: GradientOps> {
    result: usize,
    backward: Backward<B, <B as Ops>::Floats>,
}

type Backward<B, F> = Box<dyn FnOnce(&mut B, F, &mut Gradients<F>)>;

/// Gradients of the arrays of a tape.
pub struct Gradients<F>(Vec<Option<F>>);

impl<F> Gradients<F> {
    /// The gradient of an array that was no result of an operation; `None` if nothing depends on it, or it was taken.
    pub fn take(&mut self, node: &Node<F>) -> Option<F> {
        self.0[node.number].take()
    }

    /// Lets `f` add to the gradients of some arrays, of which any may be the same.
    fn add<B: GradientOps<Floats = F>, const N: usize>(
        &mut self,
        ops: &mut B,
        nodes: [&Node<F>; N],
        f: impl FnOnce(&mut B, [&mut Option<F>; N]),
    ) {
        let mut taken = nodes.map(|node| self.take(node));
        f(ops, taken.each_mut());
        for (node, gradient) in nodes.into_iter().zip(taken) {
            if let Some(gradient) = gradient {
                ops.add(gradient, &mut self.0[node.number]);
            }
        }
    }
}

impl<'a, B: GradientOps<Floats: 'static, Ints: Clone + 'static>> Tape<'a, B> {
    /// An empty tape of operations that run on `ops`, with the dropout of `masks`.
    pub fn new(ops: &'a mut B, masks: Masks) -> Tape<'a, B> {
        Tape { ops, masks, records: Vec::new(), n_nodes: 0 }
    }

    /// The device's operations, for what needs no gradient.
    pub fn ops(&mut self) -> &mut B {
        self.ops
    }

    /// Draws other masks from now on: the same site may be passed more than once.
    pub fn set_pass(&mut self, pass: u32) {
        self.masks.pass = pass;
    }

    /// An array that a gradient may be asked for: weights.
    pub fn leaf(&mut self, values: B::Floats) -> Node<B::Floats> {
        self.n_nodes += 1;
        Node { values, number: self.n_nodes - 1 }
    }

    /// Runs the operations backwards from some of their results, with the gradient of each.
    pub fn backward(self, seeds: Vec<(Node<B::Floats>, B::Floats)>) -> Gradients<B::Floats> {
        let Tape { ops, records, n_nodes, .. } = self;
        let mut gradients = Gradients((0..n_nodes).map(|_| None).collect());
        for (node, gradient) in seeds {
            ops.add(gradient, &mut gradients.0[node.number]);
        }
        for record in records.into_iter().rev() {
            // Nothing is computed for what no seed depends on. Arrays of a record go back to the device with it.
            if let Some(dy) = gradients.0[record.result].take() {
                (record.backward)(ops, dy, &mut gradients);
            }
        }
        gradients
    }

    /// The result of an operation, with its backward pass.
    fn record(
        &mut self,
        values: B::Floats,
        backward: impl FnOnce(&mut B, B::Floats, &mut Gradients<B::Floats>) + 'static,
    ) -> Node<B::Floats> {
        let node = self.leaf(values);
        self.records.push(Record { result: node.number, backward: Box::new(backward) });
        node
    }
}

fn values<F: Clone>(node: &Node<F>) -> F {
    node.values.clone()
}

impl<B: GradientOps<Floats: 'static, Ints: Clone + 'static>> Ops for Tape<'_, B> {
    type Floats = Node<B::Floats>;
    type Ints = B::Ints;

    fn floats(&mut self, tensor: &Tensor) -> Self::Floats {
        let values = self.ops.floats(tensor);
        self.leaf(values)
    }

    fn ints(&mut self, values: &[u32]) -> B::Ints {
        self.ops.ints(values)
    }

    fn read(&mut self, array: &Self::Floats) -> Result<Vec<f32>> {
        self.ops.read(&array.values)
    }

    fn gather(&mut self, table: &Self::Floats, width: usize, indices: &B::Ints, rows: usize) -> Self::Floats {
        let y = self.ops.gather(&table.values, width, indices, rows);
        let (table, indices) = (table.clone(), indices.clone());
        self.record(y, move |ops, dy, gradients| {
            gradients.add(ops, [&table], |ops, [gradient]| {
                ops.gather_gradient(&table.values, width, &indices, &dy, gradient);
            });
        })
    }

    fn embed(
        &mut self,
        items: &Self::Floats,
        positions: &Self::Floats,
        width: usize,
        scale: f32,
        ids: &B::Ints,
        rows: &Rows<B::Ints>,
    ) -> Self::Floats {
        let y = self.ops.embed(&items.values, &positions.values, width, scale, ids, rows);
        let (items, positions, ids, rows) = (items.clone(), positions.clone(), ids.clone(), rows.clone());
        self.record(y, move |ops, dy, gradients| {
            gradients.add(ops, [&items, &positions], |ops, into| {
                let (items, positions) = (&items.values, &positions.values);
                let inputs = EmbedInputs { items, positions, width, scale, ids: &ids, rows: &rows };
                ops.embed_gradient(&inputs, &dy, into);
            });
        })
    }

    fn linear(
        &mut self,
        x: &Self::Floats,
        rows: usize,
        layer: &Linear<Self::Floats>,
        activation: Activation,
        residual: Option<&Self::Floats>,
    ) -> Self::Floats {
        let weights = layer.map(&mut values);
        let added = residual.map(Node::values);
        let (y, before) = self.ops.linear_before_activation(&x.values, rows, &weights, activation, added);
        let (x, layer, residual) = (x.clone(), layer.clone(), residual.cloned());
        self.record(y, move |ops, dy, gradients| {
            let mut of_bias = layer.bias.as_ref().and_then(|bias| gradients.take(bias));
            gradients.add(ops, [&x, &layer.weight], |ops, [of_x, of_weight]| {
                let x = &x.values;
                let inputs = LinearInputs { x, rows, layer: &weights, activation, before_activation: &before };
                let into = LinearGradients { x: of_x, weight: of_weight, bias: &mut of_bias };
                ops.linear_gradient(&inputs, &dy, into);
            });
            if let Some(bias) = &layer.bias {
                gradients.0[bias.number] = of_bias;
            }
            if let Some(residual) = &residual {
                ops.add(dy, &mut gradients.0[residual.number]);
            }
        })
    }

    fn dropout(&mut self, x: &Self::Floats, _rows: usize, width: usize, site: DropoutSite) -> Self::Floats {
        let Some(dropout) = self.masks.at(site) else { return x.clone() };
        let sharing = if self.masks.is_of_rows(site) { width } else { 1 };
        let y = self.ops.drop_out(&x.values, dropout, sharing);
        let x = x.clone();
        self.record(y, move |ops, dy, gradients| {
            let dx = ops.drop_out(&dy, dropout, sharing);
            ops.add(dx, &mut gradients.0[x.number]);
        })
    }

    fn linear_with_dropout(
        &mut self,
        x: &Self::Floats,
        rows: usize,
        layer: &Linear<Self::Floats>,
        site: DropoutSite,
        residual: &Self::Floats,
    ) -> Self::Floats {
        let Some(dropout) = self.masks.at(site) else {
            return self.linear(x, rows, layer, Activation::Identity, Some(residual));
        };
        let y = self.linear(x, rows, layer, Activation::Identity, None);
        let mut sum = Some(self.ops.drop_out(&y.values, dropout, 1));
        self.ops.add(residual.values.clone(), &mut sum);
        let (residual, sum) = (residual.clone(), sum.unwrap_or_else(|| y.values.clone()));
        self.record(sum, move |ops, dy, gradients| {
            let of_y = ops.drop_out(&dy, dropout, 1);
            ops.add(of_y, &mut gradients.0[y.number]);
            ops.add(dy, &mut gradients.0[residual.number]);
        })
    }

    fn layer_norm(&mut self, x: &Self::Floats, rows: usize, width: usize, eps: f32) -> Self::Floats {
        let y = self.ops.layer_norm(&x.values, rows, width, eps);
        let x = x.clone();
        self.record(y, move |ops, dy, gradients| {
            gradients.add(ops, [&x], |ops, [gradient]| ops.layer_norm_gradient(&x.values, width, eps, &dy, gradient));
        })
    }

    fn affine_layer_norm(&mut self, x: &Self::Floats, rows: usize, norm: &LayerNorm<Self::Floats>) -> Self::Floats {
        let weights = norm.map(&mut values);
        let y = self.ops.affine_layer_norm(&x.values, rows, &weights);
        let (x, weight, bias) = (x.clone(), norm.weight.clone(), norm.bias.clone());
        self.record(y, move |ops, dy, gradients| {
            gradients.add(ops, [&x, &weight, &bias], |ops, into| {
                ops.affine_layer_norm_gradient(&x.values, &weights, &dy, into);
            });
        })
    }

    fn l2_norm(&mut self, x: &Self::Floats, rows: usize, width: usize, eps: f32) -> Self::Floats {
        let y = self.ops.l2_norm(&x.values, rows, width, eps);
        let x = x.clone();
        self.record(y, move |ops, dy, gradients| {
            gradients.add(ops, [&x], |ops, [gradient]| ops.l2_norm_gradient(&x.values, width, eps, &dy, gradient));
        })
    }

    fn glu(&mut self, x: &Self::Floats, rows: usize, hidden: usize, activation: Activation) -> Self::Floats {
        let y = self.ops.glu(&x.values, rows, hidden, activation);
        let x = x.clone();
        self.record(y, move |ops, dy, gradients| {
            gradients.add(ops, [&x], |ops, [gradient]| ops.glu_gradient(&x.values, hidden, activation, &dy, gradient));
        })
    }

    fn concat(&mut self, parts: &[(&Self::Floats, usize)], rows: usize) -> Self::Floats {
        let arrays: Vec<_> = parts.iter().map(|(part, width)| (&part.values, *width)).collect();
        let y = self.ops.concat(&arrays, rows);
        let parts: Vec<_> = parts.iter().map(|(part, width)| ((*part).clone(), *width)).collect();
        self.record(y, move |ops, dy, gradients| {
            let total = parts.iter().map(|(_, width)| width).sum();
            let mut first = 0;
            for (part, width) in &parts {
                gradients.add(ops, [part], |ops, [gradient]| ops.concat_gradient(&dy, total, first, *width, gradient));
                first += width;
            }
        })
    }

    fn time_buckets(&mut self, batch: &SequenceBatch, rows: &Rows<B::Ints>) -> B::Ints {
        self.ops.time_buckets(batch, rows)
    }

    fn hstu_attention(
        &mut self,
        uvqk: &Self::Floats,
        shape: HstuShape,
        rows: &Rows<B::Ints>,
        buckets: &B::Ints,
        pos_w: &Self::Floats,
        ts_w: &Self::Floats,
    ) -> Self::Floats {
        let y = self.ops.hstu_attention(&uvqk.values, shape, rows, buckets, &pos_w.values, &ts_w.values);
        let (rows, buckets) = (rows.clone(), buckets.clone());
        let [uvqk, pos_w, ts_w] = [uvqk, pos_w, ts_w].map(Node::clone);
        self.record(y, move |ops, dy, gradients| {
            gradients.add(ops, [&uvqk, &pos_w, &ts_w], |ops, into| {
                let [uvqk, pos_w, ts_w] = [&uvqk, &pos_w, &ts_w].map(Node::values);
                let inputs = HstuAttentionInputs { uvqk, shape, rows: &rows, buckets: &buckets, pos_w, ts_w };
                ops.hstu_attention_gradient(&inputs, &dy, into);
            });
        })
    }

    fn hstu_gate(
        &mut self,
        uvqk: &Self::Floats,
        attended: &Self::Floats,
        shape: HstuShape,
        n_rows: usize,
        eps: f32,
        concat_ua: bool,
    ) -> Self::Floats {
        let y = self.ops.hstu_gate(&uvqk.values, &attended.values, shape, n_rows, eps, concat_ua);
        let (uvqk, attended) = (uvqk.clone(), attended.clone());
        self.record(y, move |ops, dy, gradients| {
            gradients.add(ops, [&uvqk, &attended], |ops, into| {
                let (uvqk, attended) = (&uvqk.values, &attended.values);
                ops.hstu_gate_gradient(&HstuGateInputs { uvqk, attended, shape, eps, concat_ua }, &dy, into);
            });
        })
    }

    fn softmax_attention(
        &mut self,
        q: &Self::Floats,
        kv: &Self::Floats,
        shape: AttentionShape,
        rows: &Rows<B::Ints>,
        site: DropoutSite,
    ) -> Self::Floats {
        let (q, kv, rows, dropout) = (q.clone(), kv.clone(), rows.clone(), self.masks.at(site));
        let inputs = SoftmaxAttentionInputs { q: &q.values, kv: &kv.values, shape, rows: &rows, dropout };
        let y = self.ops.softmax_attention_with(&inputs);
        self.record(y, move |ops, dy, gradients| {
            gradients.add(ops, [&q, &kv], |ops, into| {
                let inputs = SoftmaxAttentionInputs { q: &q.values, kv: &kv.values, shape, rows: &rows, dropout };
                ops.softmax_attention_gradient(&inputs, &dy, into);
            });
        })
    }

    fn gru(&mut self, x: &Self::Floats, recurrent: &Linear<Self::Floats>, offsets: &[u32]) -> Self::Floats {
        let weights = recurrent.map(&mut values);
        let states = self.ops.gru(&x.values, &weights, offsets);
        let (x, recurrent, offsets, result) = (x.clone(), recurrent.clone(), offsets.to_vec(), states.clone());
        self.record(states, move |ops, dy, gradients| {
            let mut of_bias = recurrent.bias.as_ref().and_then(|bias| gradients.take(bias));
            gradients.add(ops, [&x, &recurrent.weight], |ops, [of_x, of_weight]| {
                let inputs = GruInputs { x: &x.values, recurrent: &weights, offsets: &offsets, states: &result };
                let into = LinearGradients { x: of_x, weight: of_weight, bias: &mut of_bias };
                ops.gru_gradient(&inputs, &dy, into);
            });
            if let Some(bias) = &recurrent.bias {
                gradients.0[bias.number] = of_bias;
            }
        })
    }
}
