//! [`TrainingOps`] as dispatches.

use super::dot::dot_loss;
use super::full::full_softmax_loss;
use super::gru::MAX_HIDDEN;
use super::kernels::*;
use super::mol::mol_loss;
use super::ops::{GpuTrainingOps, len};
use crate::backend::gpu::device::{Buffer, grid_1d};
use crate::backend::loss::{FullSoftmax, MolLossValue, SampledSoftmax};
use crate::backend::{AdamW, MolArrays, MolLossSettings, Trainable, TrainingOps};
use crate::config::{EncoderConfig, ModelConfig};
use crate::error::Parameter;
use crate::ops::Ops;
use crate::{Error, Result};

/// `EACH` of square_sums.wgsl.
const EACH: usize = 2048;

impl GpuTrainingOps {
    fn dispatch_adamw(&mut self, params: AdamwParams, parameter: Trainable<Buffer>, [gradient, places]: [&Buffer; 2]) {
        let Trainable { values, first_moment, second_moment } = parameter;
        let buffers = [gradient, places, values, first_moment, second_moment];
        self.element_wise(&ADAMW, &params, &buffers, params.n as usize);
    }
}

fn adamw_params(adamw: &AdamW, n: usize) -> AdamwParams {
    let factors = adamw.factors();
    AdamwParams {
        n: n as u32,
        width: 1,
        has_gradient: 0,
        has_places: 0,
        lazy: 0,
        keep: factors.keep,
        step_size: factors.step_size,
        inverse_root: factors.inverse_root,
        gradient_scale: adamw.gradient_scale,
        keep_first: AdamW::BETA_1,
        keep_second: AdamW::BETA_2,
        eps: AdamW::EPS,
    }
}

impl TrainingOps for GpuTrainingOps {
    fn check(&self, model: &ModelConfig) -> Result<()> {
        match &model.encoder {
            EncoderConfig::Gru4rec(gru) if gru.hidden_dim > MAX_HIDDEN => {
                let expected = format!("GRU4Rec of width up to {MAX_HIDDEN}: the device `cpu` trains others");
                Err(Error::argument(Parameter::Model, expected, format!("width {}", gru.hidden_dim)))
            }
            _ => Ok(()),
        }
    }

    fn zeros(&mut self, len: usize) -> Buffer {
        self.cleared(len)
    }

    fn dot_loss(
        &mut self,
        dim: usize,
        queries: &Buffer,
        items: &Buffer,
        softmax: SampledSoftmax,
    ) -> Result<(f64, [Buffer; 2])> {
        dot_loss(self, dim, [queries, items], softmax)
    }

    fn full_softmax_loss(
        &mut self,
        dim: usize,
        queries: &Buffer,
        items: &Buffer,
        softmax: FullSoftmax,
    ) -> Result<(f64, [Buffer; 2])> {
        full_softmax_loss(self, dim, [queries, items], softmax)
    }

    fn mol_loss(
        &mut self,
        arrays: &MolArrays<Buffer>,
        settings: &MolLossSettings,
    ) -> Result<(MolLossValue, MolArrays<Buffer>)> {
        mol_loss(self, arrays, settings)
    }

    fn squared_rows(&mut self, x: &Buffer, width: usize, weights: &[f32], scale: f32) -> Result<(f64, Buffer)> {
        let n = weights.len();
        let (weights, squares, gradient) = (self.recorder.upload(weights), self.result(n), self.result(len(x)));
        let params = SquaredRowsParams { n: n as u32, width: width as u32, scale };
        self.element_wise(&SQUARED_ROWS, &params, &[x, &weights, &squares, &gradient], n);
        let squares = self.read(&squares)?;
        Ok((squares.iter().map(|&square| f64::from(square)).sum(), gradient))
    }

    fn sums_of_squares(&mut self, arrays: &[&Buffer]) -> Result<Vec<f64>> {
        let mut sums = Vec::with_capacity(arrays.len());
        for array in arrays {
            let n = len(array);
            let parts = n.div_ceil(EACH);
            let y = self.recorder.temporary(8 * parts as u64);
            let params = SquareSumsParams { n: n as u32 };
            self.recorder.dispatch(&SQUARE_SUMS, &params, &[array, &y], grid_1d(parts as u64));
            sums.push(y);
        }
        let read = self.recorder.read_all(&sums.iter().collect::<Vec<_>>())?;
        let sum = |bytes: &Vec<u8>| {
            let parts: Vec<[u32; 2]> = bytemuck::pod_collect_to_vec(bytes);
            let finite = parts.iter().all(|&[_, flag]| flag == 0);
            let sum = parts.iter().map(|&[sum, _]| f64::from(f32::from_bits(sum))).sum();
            if finite { sum } else { f64::INFINITY }
        };
        Ok(read.iter().map(sum).collect())
    }

    fn update(&mut self, adamw: &AdamW, parameter: Trainable<Buffer>, gradient: Option<&Buffer>) {
        let none = self.placeholder();
        let params =
            AdamwParams { has_gradient: gradient.is_some().into(), ..adamw_params(adamw, len(parameter.values)) };
        self.dispatch_adamw(params, parameter, [gradient.unwrap_or(&none), &none]);
    }

    fn update_rows(
        &mut self,
        adamw: &AdamW,
        table: Trainable<Buffer>,
        width: usize,
        rows: &[u32],
        gradient: &Buffer,
        lazy: bool,
    ) {
        let n = len(table.values);
        let mut places = vec![u32::MAX; n / width.max(1)];
        (0..).zip(rows).for_each(|(place, &row)| places[row as usize] = place);
        let places = self.recorder.upload(&places);
        let params = AdamwParams { width: width as u32, has_places: 1, lazy: lazy.into(), ..adamw_params(adamw, n) };
        self.dispatch_adamw(params, table, [gradient, &places]);
    }
}
