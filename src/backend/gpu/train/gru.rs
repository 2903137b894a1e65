//! The gradient of gated recurrent units: what depends on one row only is computed for all rows at once.

use super::kernels::*;
use super::ops::{GpuTrainingOps, len};
use super::product::{CHUNK, Matrix};
use crate::backend::gpu::device::{Buffer, grid_1d};
use crate::backend::gpu::kernels::{GRU_SEQUENCES, by_length};
use crate::ops::{Activation, GruInputs, Ops};

/// Widest state: four arrays of the states of four sequences lie in the 16 KiB of workgroup memory that every device has.
pub const MAX_HIDDEN: usize = 256;

/// Of x, of the recurrent weight and of its bias.
pub fn gru_gradient(ops: &mut GpuTrainingOps, inputs: &GruInputs<Buffer>, dy: &Buffer) -> [Buffer; 3] {
    let (layer, hidden) = (inputs.recurrent, inputs.recurrent.n_in);
    let rows = len(inputs.states) / hidden;
    let before = states_before(ops, inputs, hidden);
    let added = ops.linear(&before, rows, layer, Activation::Identity, None);
    let [dx, of_added] = [(); 2].map(|()| ops.result(len(inputs.x)));
    let sequences = by_length(inputs.offsets);
    let groups = sequences.len() / GRU_SEQUENCES;
    let sequences = ops.recorder.upload(&sequences);
    let buffers = [inputs.x, &added, &before, &layer.weight, dy, &sequences, &dx, &of_added];
    let params = GruGradientParams { groups: groups as u32 };
    ops.recorder.dispatch(&gru_gradient_spec(hidden), &params, &buffers, grid_1d(groups as u64));
    let of_weight =
        ops.product((hidden, rows, 3 * hidden), Matrix(&before, 1, hidden), Matrix(&of_added, 3 * hidden, 1), CHUNK);
    let of_bias = ops.column_sums(&of_added, rows, 3 * hidden);
    [dx, of_weight, of_bias]
}

/// (rows, hidden): the state before each row.
fn states_before(ops: &mut GpuTrainingOps, inputs: &GruInputs<Buffer>, hidden: usize) -> Buffer {
    let rows = len(inputs.states) / hidden;
    // A row of zeros behind the states.
    let padded = ops.cleared((rows + 1) * hidden);
    ops.recorder.copy(inputs.states, &padded.slice(0..inputs.states.bytes()));
    let mut places: Vec<u32> = (0..rows as u32).map(|row| row.wrapping_sub(1)).collect();
    for pair in inputs.offsets.windows(2).filter(|pair| pair[1] > pair[0]) {
        places[pair[0] as usize] = rows as u32;
    }
    let places = ops.ints(&places);
    ops.gather(&padded, hidden, &places, rows)
}
