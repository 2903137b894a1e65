// full_softmax: the loss of each position among all items, and the derivatives of the mean loss with respect to similarities, in place.
// The logit of an item is similarity / temperature. One workgroup per position.
// in   0 params  1 targets (any): items    out 2 similarities (positions, M), then derivatives  3 losses (any)
// grid folded positions   needs lib/reduction.wgsl   twin src/backend/cpu/loss/full.rs
// loops over items end at M
struct Params {
    positions: u32,
    first_position: u32,   // among targets and losses
    items: u32,            // M
    temperature: f32,
    scale: f32,            // 1 / (P temperature)
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> targets: array<u32>;
@group(0) @binding(2) var<storage, read_write> similarities: array<f32>;
@group(0) @binding(3) var<storage, read_write> losses: array<f32>;

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
    let first = index * params.items;
    let place = targets[params.first_position + index];
    let found = similarities[first + place] / params.temperature;
    var greatest = found;
    for (var i = thread; i < params.items; i += WORKGROUP) {
        greatest = max(greatest, similarities[first + i] / params.temperature);
    }
    greatest = greatest_of_threads(thread, greatest);
    var others = 0.0;
    for (var i = thread; i < params.items; i += WORKGROUP) {
        let share = exp(similarities[first + i] / params.temperature - greatest);
        others += select(share, 0.0, i == place);
    }
    others = sum_of_threads(thread, others);
    let total = others + exp(found - greatest);
    for (var i = thread; i < params.items; i += WORKGROUP) {
        let share = exp(similarities[first + i] / params.temperature - greatest);
        similarities[first + i] = select(share, -others, i == place) / total * params.scale;
    }
    if thread == 0u {
        losses[params.first_position + index] = log(total) - (found - greatest);
    }
}
