//! [`GradientOps`] as dispatches. Every part of a gradient is an array of its own, which is then added to what there was: arrays are
//! shared, and none is changed.

use super::attention::{Attention, hstu_attention_gradient, softmax_attention_gradient};
use super::gru::gru_gradient;
use super::kernels::*;
use super::lists::Lists;
use super::ops::{GpuInts, GpuTrainingOps, len, on_device};
use super::product::{CHUNK, Matrix};
use crate::backend::gpu::device::{Buffer, grid_1d};
use crate::backend::gpu::kernels::activation_code;
use crate::ops::{
    Activation, DropoutSite, EmbedInputs, GradientOps, GruInputs, HstuAttentionInputs, HstuGateInputs, LayerNorm,
    Linear, LinearGradients, LinearInputs, Ops, SoftmaxAttentionInputs,
};
use crate::random::Dropout;

type Gradient<'a> = &'a mut Option<Buffer>;

impl GpuTrainingOps {
    /// (rows, width): columns `first ..` of x (rows, total).
    pub(super) fn columns(&mut self, x: &Buffer, rows: usize, total: usize, first: usize, width: usize) -> Buffer {
        let n = rows * width;
        let y = self.result(n);
        let params = ColumnsParams { n: n as u32, width: width as u32, total: total as u32, first: first as u32 };
        self.element_wise(&COLUMNS, &params, &[x, &y], n);
        y
    }

    /// (rows, width): for each row of a table the sum of the rows of dy that have looked it up.
    fn looked_up(&mut self, indices: &[u32], rows: usize, width: usize, scale: f32, dy: &Buffer) -> Buffer {
        let lists = Lists::of(indices, rows);
        let (starts, places) = (self.recorder.upload(&lists.starts), self.recorder.upload(&lists.places));
        let n = rows * width;
        let y = self.result(n);
        let params = SumListsParams { n: n as u32, width: width as u32, scale };
        self.element_wise(&SUM_LISTS, &params, &[&starts, &places, dy, &y], n);
        y
    }
}

impl GradientOps for GpuTrainingOps {
    fn add(&mut self, part: Buffer, gradient: Gradient) {
        let sum = match gradient.take() {
            None => part,
            Some(before) => {
                let n = len(&part);
                let y = self.result(n);
                self.element_wise(&ADD, &AddParams { n: n as u32 }, &[&before, &part, &y], n);
                y
            }
        };
        *gradient = Some(sum);
    }

    fn drop_out(&mut self, x: &Buffer, dropout: Dropout, sharing: usize) -> Buffer {
        let n = len(x);
        let y = self.result(n);
        let [key_0, key_1] = dropout.key();
        let params = DropOutParams {
            n: n as u32,
            sharing: sharing as u32,
            threshold: dropout.threshold(),
            scale: dropout.scale(),
            key_0,
            key_1,
        };
        self.element_wise(&DROP_OUT, &params, &[x, &y], n);
        y
    }

    fn linear_before_activation(
        &mut self,
        x: &Buffer,
        rows: usize,
        layer: &Linear<Buffer>,
        activation: Activation,
        residual: Option<&Buffer>,
    ) -> (Buffer, Buffer) {
        let y = self.linear(x, rows, layer, activation, residual);
        let before = match activation {
            Activation::Identity => y.clone(),
            _ => self.linear(x, rows, layer, Activation::Identity, None),
        };
        (y, before)
    }

    fn softmax_attention_with(&mut self, inputs: &SoftmaxAttentionInputs<Buffer, GpuInts>) -> Buffer {
        match inputs.dropout {
            Some(_) => Attention::of(inputs).dropped_out(self),
            // No probability is dropped out, wherever this is.
            None => {
                let site = DropoutSite::Attention { block: 0 };
                self.recorder.softmax_attention(inputs.q, inputs.kv, inputs.shape, &on_device(inputs.rows), site)
            }
        }
    }

    fn gather_gradient(&mut self, table: &Buffer, width: usize, indices: &GpuInts, dy: &Buffer, gradient: Gradient) {
        let part = self.looked_up(&indices.values, len(table) / width.max(1), width, 1.0, dy);
        self.add(part, gradient);
    }

    fn embed_gradient(
        &mut self,
        inputs: &EmbedInputs<Buffer, GpuInts>,
        dy: &Buffer,
        [items, positions]: [Gradient; 2],
    ) {
        let width = inputs.width;
        let part = self.looked_up(&inputs.ids.values, len(inputs.items) / width, width, inputs.scale, dy);
        self.add(part, items);
        let places: Vec<u32> = (0..).zip(&*inputs.rows.start.values).map(|(row, start)| row - start).collect();
        let part = self.looked_up(&places, len(inputs.positions) / width, width, 1.0, dy);
        self.add(part, positions);
    }

    fn linear_gradient(&mut self, inputs: &LinearInputs<Buffer>, dy: &Buffer, gradients: LinearGradients<Buffer>) {
        let (n_in, n_out, rows) = (inputs.layer.n_in, inputs.layer.n_out, inputs.rows);
        let d = match inputs.activation {
            Activation::Identity => dy.clone(),
            activation => {
                let n = rows * n_out;
                let d = self.result(n);
                let params = ActivationGradientParams { n: n as u32, activation: activation_code(activation) };
                self.element_wise(&ACTIVATION_GRADIENT, &params, &[inputs.before_activation, dy, &d], n);
                d
            }
        };
        let of_x =
            self.product((rows, n_out, n_in), Matrix(&d, n_out, 1), Matrix(&inputs.layer.weight, 1, n_out), n_out);
        self.add(of_x, gradients.x);
        let of_weight = self.product((n_in, rows, n_out), Matrix(inputs.x, 1, n_in), Matrix(&d, n_out, 1), CHUNK);
        self.add(of_weight, gradients.weight);
        if inputs.layer.bias.is_some() {
            let of_bias = self.column_sums(&d, rows, n_out);
            self.add(of_bias, gradients.bias);
        }
    }

    fn layer_norm_gradient(&mut self, x: &Buffer, width: usize, eps: f32, dy: &Buffer, gradient: Gradient) {
        let (rows, dx) = (len(x) / width.max(1), self.result(len(x)));
        // One is read and one is written, so they are two.
        let (none, unused) = (self.placeholder(), self.result(4));
        let params = NormGradientParams { rows: rows as u32, width: width as u32, eps, unbiased: 0 };
        self.recorder.dispatch(&LAYER_NORM_GRADIENT, &params, &[x, &none, dy, &dx, &unused], grid_1d(rows as u64));
        self.add(dx, gradient);
    }

    fn affine_layer_norm_gradient(&mut self, x: &Buffer, norm: &LayerNorm<Buffer>, dy: &Buffer, into: [Gradient; 3]) {
        let (width, rows) = (norm.width, len(x) / norm.width.max(1));
        let (dx, dw) = (self.result(len(x)), self.result(len(x)));
        let (eps, unbiased) = (norm.eps, norm.unbiased.into());
        let params = NormGradientParams { rows: rows as u32, width: width as u32, eps, unbiased };
        let buffers = [x, &norm.weight, dy, &dx, &dw];
        self.recorder.dispatch(&AFFINE_LAYER_NORM_GRADIENT, &params, &buffers, grid_1d(rows as u64));
        let [of_x, of_weight, of_bias] = into;
        self.add(dx, of_x);
        let part = self.column_sums(&dw, rows, width);
        self.add(part, of_weight);
        let part = self.column_sums(dy, rows, width);
        self.add(part, of_bias);
    }

    fn l2_norm_gradient(&mut self, x: &Buffer, width: usize, eps: f32, dy: &Buffer, gradient: Gradient) {
        let (rows, dx) = (len(x) / width.max(1), self.result(len(x)));
        // One is read and one is written, so they are two.
        let (none, unused) = (self.placeholder(), self.result(4));
        let params = NormGradientParams { rows: rows as u32, width: width as u32, eps, unbiased: 0 };
        self.recorder.dispatch(&L2_NORM_GRADIENT, &params, &[x, &none, dy, &dx, &unused], grid_1d(rows as u64));
        self.add(dx, gradient);
    }

    fn glu_gradient(&mut self, x: &Buffer, hidden: usize, activation: Activation, dy: &Buffer, gradient: Gradient) {
        let (n, dx) = (len(dy), self.result(len(x)));
        let params = GluGradientParams { n: n as u32, hidden: hidden as u32, activation: activation_code(activation) };
        self.element_wise(&GLU_GRADIENT, &params, &[x, dy, &dx], n);
        self.add(dx, gradient);
    }

    fn concat_gradient(&mut self, dy: &Buffer, total: usize, first: usize, width: usize, gradient: Gradient) {
        let part = self.columns(dy, len(dy) / total.max(1), total, first, width);
        self.add(part, gradient);
    }

    fn hstu_attention_gradient(
        &mut self,
        inputs: &HstuAttentionInputs<Buffer, GpuInts>,
        dy: &Buffer,
        gradients: [Gradient; 3],
    ) {
        let parts = hstu_attention_gradient(self, inputs, dy);
        parts.into_iter().zip(gradients).for_each(|(part, gradient)| self.add(part, gradient));
    }

    fn hstu_gate_gradient(&mut self, inputs: &HstuGateInputs<Buffer>, dy: &Buffer, [uvqk, attended]: [Gradient; 2]) {
        let HstuGateInputs { shape, eps, concat_ua, .. } = *inputs;
        let (width, stride) = (shape.attended(), shape.uvqk());
        let (n, rows) = (len(inputs.attended), len(inputs.attended) / width.max(1));
        let a = self.layer_norm(inputs.attended, rows, width, eps);
        let (of_uvqk, of_a) = (self.cleared(rows * stride), self.result(n));
        let params = HstuGateGradientParams {
            n: n as u32,
            width: width as u32,
            stride: stride as u32,
            concat_ua: concat_ua.into(),
        };
        self.element_wise(&HSTU_GATE_GRADIENT, &params, &[inputs.uvqk, &a, dy, &of_uvqk, &of_a], n);
        self.add(of_uvqk, uvqk);
        self.layer_norm_gradient(inputs.attended, width, eps, &of_a, attended);
    }

    fn softmax_attention_gradient(
        &mut self,
        inputs: &SoftmaxAttentionInputs<Buffer, GpuInts>,
        dy: &Buffer,
        gradients: [Gradient; 2],
    ) {
        let parts = softmax_attention_gradient(self, inputs, dy);
        parts.into_iter().zip(gradients).for_each(|(part, gradient)| self.add(part, gradient));
    }

    fn gru_gradient(&mut self, inputs: &GruInputs<Buffer>, dy: &Buffer, gradients: LinearGradients<Buffer>) {
        let [of_x, of_weight, of_bias] = gru_gradient(self, inputs, dy);
        self.add(of_x, gradients.x);
        self.add(of_weight, gradients.weight);
        if inputs.recurrent.bias.is_some() {
            self.add(of_bias, gradients.bias);
        }
    }
}
