//! Weights of a cross gate on the device.

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
        let floats = cross_weights(cross);
        let floats = if variant.has_uniform_weights() { gpu.upload_uniform(&floats)? } else { gpu.upload(&floats)? };
        let halves = variant.coop_weights(cross).map(|halves| gpu.upload(&halves)).transpose()?;
        Ok(GateWeights { floats, halves })
    }
}

/// A cross gate as `mol.wgsl` reads it.
fn cross_weights(cross: &CrossGate<Tensor>) -> Vec<f32> {
    let n_logits = cross.output.n_out;
    let mut weights = Vec::new();
    let mut quads = |values: &mut dyn Iterator<Item = f32>| {
        weights.extend(values);
        weights.resize(weights.len().next_multiple_of(4), 0.0);
    };
    match &cross.output.bias {
        Some(bias) => quads(&mut bias.data().iter().copied()),
        None => quads(&mut std::iter::repeat_n(0.0, n_logits)),
    }
    if let Some(hidden) = &cross.hidden {
        for unit in 0..hidden.n_out {
            quads(&mut std::iter::once(hidden.bias.as_ref().map_or(0.0, |bias| bias.data()[unit])));
            quads(&mut hidden.weight.data().iter().skip(unit).step_by(hidden.n_out).copied());
            quads(&mut cross.output.weight.row(unit).iter().copied());
        }
    }
    if cross.has_linear_part() {
        // Without a hidden layer the output layer is the linear part.
        let linear = cross.linear.as_ref().unwrap_or(&cross.output.weight);
        linear.data().chunks_exact(n_logits).for_each(|row| quads(&mut row.iter().copied()));
    }
    weights
}
