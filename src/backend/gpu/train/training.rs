//! [`TrainingOps`] as dispatches.

use super::kernels::*;
use super::lists::Lists;
use super::ops::{GpuTrainingOps, len};
use crate::backend::gpu::device::{Buffer, grid_1d};
use crate::backend::loss::{FullSoftmax, MolLossValue, SampledSoftmax};
use crate::backend::{AdamW, MolArrays, MolLossSettings, Trainable, TrainingOps};
use crate::config::{EncoderConfig, ModelConfig, SimilarityConfig};
use crate::error::Parameter;
use crate::{Error, Result};

/// Pairs of a round, of which logits and derivatives are kept.
const ROUND: usize = 1 << 23;

/// `EACH` of square_sums.wgsl.
const EACH: usize = 2048;

impl GpuTrainingOps {
    fn dispatch_adamw(&mut self, params: AdamwParams, parameter: Trainable<Buffer>, [gradient, places]: [&Buffer; 2]) {
        let Trainable { values, first_moment, second_moment } = parameter;
        let buffers = [gradient, places, values, first_moment, second_moment];
        self.element_wise(&ADAMW, &params, &buffers, params.n as usize);
    }

    fn mixtures_are_not_trained() -> Error {
        GpuTrainingOps::not_trained("SASRec or HSTU with a dot product", "Mixture-of-Logits")
    }

    fn not_trained(trained: &str, found: &str) -> Error {
        let expected = format!("{trained}: GPUs train no others yet, the device `cpu` does");
        Error::argument(Parameter::Model, expected, found)
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
        if model.similarity != SimilarityConfig::DotProduct {
            return Err(GpuTrainingOps::mixtures_are_not_trained());
        }
        let found = match model.encoder {
            EncoderConfig::Hstu(_) | EncoderConfig::Sasrec(_) => return Ok(()),
            EncoderConfig::Gru4rec(_) => "GRU4Rec",
            EncoderConfig::Bert4rec(_) => "BERT4Rec",
        };
        Err(GpuTrainingOps::not_trained("SASRec or HSTU", found))
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
        let n = softmax.positives.len();
        let n_items = len(items) / dim;
        let per_position = softmax.negatives.len() / n.max(1) + 1;
        let positions = (ROUND / per_position).clamp(1, n.max(1));
        let none = self.placeholder();
        let correction = softmax.correction.map(|correction| self.recorder.upload(correction));
        // The positive of each position, then its negatives.
        let negatives = softmax.negatives.chunks(per_position - 1);
        let pairs = softmax.positives.iter().zip(negatives);
        let indices: Vec<u32> = pairs
            .flat_map(|(&positive, negatives)| std::iter::once(positive).chain(negatives.iter().copied()))
            .collect();
        let losses = self.result(n);
        let of_queries = self.result(n * dim);
        let mut of_items = None;
        let mut parts_of_losses = Vec::new();
        let mut parts_of_queries = Vec::new();
        for indices in indices.chunks(positions * per_position) {
            let first = parts_of_losses.len() * positions;
            let n_pairs = indices.len();
            let here = n_pairs / per_position;
            let list = self.recorder.upload(indices);
            // Rounds begin wherever they begin; bindings do not.
            let round = self.rows_of(queries, first, here, dim);
            let logits = self.result(n_pairs);
            let params = PairLogitsParams {
                n: n_pairs as u32,
                dim: dim as u32,
                per_position: per_position as u32,
                temperature: softmax.temperature,
                has_correction: correction.is_some().into(),
            };
            let buffers = [&round, items, &list, correction.as_ref().unwrap_or(&none), &logits];
            self.element_wise(&PAIR_LOGITS, &params, &buffers, n_pairs);
            let (loss, dy) = (self.result(here), self.result(n_pairs));
            let params = SampledSoftmaxParams {
                positions: here as u32,
                per_position: per_position as u32,
                scale: (1.0 / (n as f64 * f64::from(softmax.temperature))) as f32,
            };
            self.recorder.dispatch(&SAMPLED_SOFTMAX, &params, &[&logits, &list, &loss, &dy], grid_1d(here as u64));
            let starts: Vec<u32> = (0..=here).map(|position| (position * per_position) as u32).collect();
            let starts = self.recorder.upload(&starts);
            let of_round = self.result(here * dim);
            let params = SumListsParams {
                n: (here * dim) as u32,
                width: dim as u32,
                scale: 1.0,
                divisor: 0,
                has_coefficients: 1,
            };
            self.element_wise(&SUM_LISTS, &params, &[&starts, &list, &dy, items, &of_round], here * dim);
            let by_item = Lists::of(indices, n_items);
            let (starts, places) = (self.recorder.upload(&by_item.starts), self.recorder.upload(&by_item.places));
            let part = self.result(n_items * dim);
            let params = SumListsParams { n: (n_items * dim) as u32, divisor: per_position as u32, ..params };
            self.element_wise(&SUM_LISTS, &params, &[&starts, &places, &dy, &round, &part], n_items * dim);
            crate::ops::GradientOps::add(self, part, &mut of_items);
            parts_of_losses.push(loss);
            parts_of_queries.push(of_round);
        }
        let (mut at_loss, mut at_query) = (0, 0);
        for (loss, query) in parts_of_losses.iter().zip(&parts_of_queries) {
            self.recorder.copy(loss, &losses.slice(at_loss..at_loss + loss.bytes()));
            self.recorder.copy(query, &of_queries.slice(at_query..at_query + query.bytes()));
            (at_loss, at_query) = (at_loss + loss.bytes(), at_query + query.bytes());
        }
        let losses: Vec<f32> = bytemuck::pod_collect_to_vec(&self.recorder.read_bytes(&losses)?);
        let of_items = of_items.unwrap_or_else(|| self.cleared(n_items * dim));
        let sum: f64 = losses.iter().map(|&loss| f64::from(loss)).sum();
        Ok((sum / n.max(1) as f64, [of_queries, of_items]))
    }

    fn full_softmax_loss(&mut self, _: usize, _: &Buffer, _: &Buffer, _: FullSoftmax) -> Result<(f64, [Buffer; 2])> {
        let expected = "the sampled softmax: GPUs train no other loss yet, CPUs do";
        Err(Error::argument(Parameter::HyperParameter("loss"), expected, "the full softmax"))
    }

    fn mol_loss(&mut self, _: &MolArrays<Buffer>, _: &MolLossSettings) -> Result<(MolLossValue, MolArrays<Buffer>)> {
        Err(GpuTrainingOps::mixtures_are_not_trained())
    }

    fn squared_rows(&mut self, _: &Buffer, _: usize, _: &[f32], _: f32) -> Result<(f64, Buffer)> {
        Err(GpuTrainingOps::mixtures_are_not_trained())
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

impl GpuTrainingOps {
    /// Some rows of an array, as one that can be bound.
    fn rows_of(&mut self, array: &Buffer, first: usize, rows: usize, width: usize) -> Buffer {
        let bytes = 4 * (rows * width) as u64;
        if bytes == array.bytes() {
            return array.clone();
        }
        let y = self.result(rows * width);
        let start = 4 * (first * width) as u64;
        self.recorder.copy(&array.slice(start..start + bytes), &y);
        y
    }
}
