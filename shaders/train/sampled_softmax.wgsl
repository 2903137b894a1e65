// sampled_softmax: the loss of each position, and the derivatives of the mean loss with respect to its similarities. A negative that is
// the positive has the logit -50000 and no derivative. One workgroup per position.
// in   0 params  1 logits (P, 1 + R): of the positive, then of negatives  2 indices (P, 1 + R)
// out  3 losses (P)  4 dy (P, 1 + R)
// grid folded P   needs lib/reduction.wgsl   twin src/backend/cpu/loss/softmax.rs
// loops over pairs end at 1 + R
struct Params {
    positions: u32,
    per_position: u32,   // 1 + R
    scale: f32,          // 1 / (P temperature)
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> indices: array<u32>;
@group(0) @binding(3) var<storage, read_write> losses: array<f32>;
@group(0) @binding(4) var<storage, read_write> dy: array<f32>;

// The logit of negative number i - first - 1.
fn logit(first: u32, i: u32) -> f32 {
    return select(logits[i], -5e4, indices[i] == indices[first]);
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) grid: vec3u,
    @builtin(local_invocation_index) thread: u32,
) {
    let position = group.x + group.y * grid.x;
    if position >= params.positions {
        return;
    }
    let first = position * params.per_position;
    let end = first + params.per_position;
    let positive = logits[first];
    var greatest = positive;
    for (var i = first + 1u + thread; i < end; i += WORKGROUP) { greatest = max(greatest, logit(first, i)); }
    greatest = greatest_of_threads(thread, greatest);
    var others = 0.0;
    for (var i = first + 1u + thread; i < end; i += WORKGROUP) { others += exp(logit(first, i) - greatest); }
    others = sum_of_threads(thread, others);
    let total = others + exp(positive - greatest);
    for (var i = first + 1u + thread; i < end; i += WORKGROUP) {
        let share = exp(logit(first, i) - greatest) / total;
        dy[i] = select(share * params.scale, 0.0, indices[i] == indices[first]);
    }
    if thread == 0u {
        dy[first] = -others / total * params.scale;
        losses[position] = log(total) - (positive - greatest);
    }
}
