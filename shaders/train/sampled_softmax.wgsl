// sampled_softmax: the loss of each position, and the derivatives of the mean loss with respect to its similarities. The logit of a pair
// is similarity / temperature - correction; a negative that is the positive has the logit -50000 and no derivative. One workgroup per
// position.
// in   0 params  1 similarities (any, 1 + R): of the positive, then of negatives  2 indices (any, 1 + R)  3 correction (M)
// out  4 losses (any)  5 dy (any, 1 + R)
// grid folded positions   needs lib/reduction.wgsl   twin src/backend/cpu/loss/softmax.rs
// loops over pairs end at 1 + R
struct Params {
    positions: u32,
    first_position: u32,
    per_position: u32,   // 1 + R
    temperature: f32,
    has_correction: u32,
    scale: f32,          // 1 / (P temperature)
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> similarities: array<f32>;
@group(0) @binding(2) var<storage, read> indices: array<u32>;
@group(0) @binding(3) var<storage, read> correction: array<f32>;
@group(0) @binding(4) var<storage, read_write> losses: array<f32>;
@group(0) @binding(5) var<storage, read_write> dy: array<f32>;

fn logit(i: u32) -> f32 {
    let similarity = similarities[i] / params.temperature;
    if params.has_correction != 0u { return similarity - correction[indices[i]]; }
    return similarity;
}

// That of negative number i - first - 1.
fn of_negative(first: u32, i: u32) -> f32 {
    return select(logit(i), -5e4, indices[i] == indices[first]);
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) grid: vec3u,
    @builtin(local_invocation_index) thread: u32,
) {
    let index = group.x + group.y * grid.x;
    if index >= params.positions {
        return;
    }
    let position = params.first_position + index;
    let first = position * params.per_position;
    let end = first + params.per_position;
    let positive = logit(first);
    var greatest = positive;
    for (var i = first + 1u + thread; i < end; i += WORKGROUP) { greatest = max(greatest, of_negative(first, i)); }
    greatest = greatest_of_threads(thread, greatest);
    var others = 0.0;
    for (var i = first + 1u + thread; i < end; i += WORKGROUP) { others += exp(of_negative(first, i) - greatest); }
    others = sum_of_threads(thread, others);
    let total = others + exp(positive - greatest);
    for (var i = first + 1u + thread; i < end; i += WORKGROUP) {
        let share = exp(of_negative(first, i) - greatest) / total;
        dy[i] = select(share * params.scale, 0.0, indices[i] == indices[first]);
    }
    if thread == 0u {
        dy[first] = -others / total * params.scale;
        losses[position] = log(total) - (positive - greatest);
    }
}
