//! Weights of a cross gate on the device.

use super::sections::Sections;
use super::variant::ShaderVariant;
use crate::Result;
use crate::backend::gpu::device::{Buffer, Gpu};
use crate::model::CrossGate;
use crate::tensor::Tensor;

/// A cross gate on the device.
#[derive(Debug)]
pub(crate) struct GateWeights {
    /// From [`cross_weights`]; also for a uniform binding, where they are few enough.
    pub floats: Buffer,
    /// For cooperative matrices, where they may be used.
    pub halves: Option<Buffer>,
}

impl GateWeights {
    /// Those of `cross` as the kernels of `variant` read them.
    ///
    /// # Errors
    /// If they do not fit, or the device fails.
    pub fn new(gpu: &Gpu, variant: &ShaderVariant, cross: &CrossGate<Tensor>) -> Result<GateWeights> {
        let floats = cross_weights(cross, variant.sections());
        let floats = if variant.has_uniform_weights() { gpu.upload_uniform(&floats)? } else { gpu.upload(&floats)? };
        let halves = variant.coop_weights(cross).map(|halves| gpu.upload(&halves)).transpose()?;
        Ok(GateWeights { floats, halves })
    }
}

/// A cross gate as `mol.wgsl` reads it.
fn cross_weights(cross: &CrossGate<Tensor>, sections: &Sections) -> Vec<f32> {
    let (count, units, n_own) = (sections.count(), sections.units(), sections.n_own());
    let all: Vec<Vec<Option<usize>>> = (0..count).map(|section| sections.logits(section)).collect();
    let mut weights = Vec::new();
    let mut quads = |values: &mut dyn Iterator<Item = f32>| {
        weights.extend(values);
        weights.resize(weights.len().next_multiple_of(4), 0.0);
    };
    for (section, own) in all.iter().enumerate() {
        let mut own_quads = |value: &dyn Fn(usize) -> f32| quads(&mut own.iter().map(|l| l.map_or(0.0, value)));
        own_quads(&|l| cross.output.bias.as_ref().map_or(0.0, |bias| bias.data()[l]));
        if let Some(hidden) = &cross.hidden {
            for unit in 0..hidden.n_out.next_multiple_of(units) {
                let is_padding = unit >= hidden.n_out;
                let bias = hidden.bias.as_ref().filter(|_| section == 0 && !is_padding);
                quads(&mut std::iter::once(bias.map_or(0.0, |bias| bias.data()[unit])));
                let weight = |matrix: &Tensor, row: usize, column: usize| match is_padding {
                    true => 0.0,
                    false => matrix.row(row)[column],
                };
                let mut own_quads = |value: &dyn Fn(usize) -> f32| quads(&mut own.iter().map(|l| l.map_or(0.0, value)));
                own_quads(&|l| weight(&hidden.weight, l, unit));
                own_quads(&|l| weight(&cross.output.weight, unit, l));
            }
        }
        if cross.has_linear_part() {
            // Without a hidden layer the output layer is the linear part.
            let linear = cross.linear.as_ref().unwrap_or(&cross.output.weight);
            for j in (0..n_own.next_multiple_of(units)).step_by(units) {
                for from in all.iter().flat_map(|other| (j..j + units).map(|j| other.get(j).copied().flatten())) {
                    let mut row = own.iter().map(|l| l.zip(from).map_or(0.0, |(l, from)| linear.row(from)[l]));
                    quads(&mut row);
                }
            }
        }
    }
    weights
}
