// gru_gradient: the gradient of a layer of gated recurrent units, step by step backwards. A workgroup takes four sequences as in
// ops/gru.wgsl, the gradients of their states in workgroup memory; a thread computes columns of all four.
// in   0 params  1 x (rows, 3 HIDDEN)  2 added (rows, 3 HIDDEN): what the state before adds to x  3 before (rows, HIDDEN): that state
//      4 weight (HIDDEN, 3 HIDDEN)  5 dy (rows, HIDDEN)  6 sequences (4 groups): first row and length, the longest of a group first
// out  7 dx (rows, 3 HIDDEN)  8 dadded (rows, 3 HIDDEN)
// grid folded groups   needs lib/gru_gates.wgsl   twin src/backend/cpu/ops/gradient/gru.rs
// loops over steps end at the length of the longest sequence of a group, those over columns at HIDDEN
override HIDDEN: u32 = 64u;

struct Params {
    groups: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> added: array<f32>;
@group(0) @binding(3) var<storage, read> before: array<f32>;
@group(0) @binding(4) var<storage, read> weight: array<f32>;
@group(0) @binding(5) var<storage, read> dy: array<f32>;
@group(0) @binding(6) var<storage, read> sequences: array<vec2u>;
@group(0) @binding(7) var<storage, read_write> dx: array<f32>;
@group(0) @binding(8) var<storage, read_write> dadded: array<f32>;

const WORKGROUP: u32 = 64u;

// Of the four sequences, for each column: of the state, and of what it adds to the three parts of x.
var<workgroup> of_state: array<vec4f, HIDDEN>;
var<workgroup> of_reset: array<vec4f, HIDDEN>;
var<workgroup> of_update: array<vec4f, HIDDEN>;
var<workgroup> of_added: array<vec4f, HIDDEN>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) grid: vec3u,
    @builtin(local_invocation_index) thread: u32,
) {
    let index = group.x + group.y * grid.x;
    if index >= params.groups {
        return;
    }
    let four = four_sequences(index);
    let first = four.first;
    let length = four.length;
    for (var column = thread; column < HIDDEN; column += WORKGROUP) {
        of_state[column] = vec4f();
    }
    for (var done = 0u; done < length.x; done++) {
        let step = length.x - 1u - done;
        // A sequence that has no such step has no gradient yet.
        let has_step = vec4u(step) < length;
        let rows = select(first, first + step, has_step);
        for (var column = thread; column < HIDDEN; column += WORKGROUP) {
            let i = rows * HIDDEN + column;
            let j = rows * (3u * HIDDEN) + column;
            let k = j + HIDDEN;
            let l = k + HIDDEN;
            let from_state = vec4f(added[l.x], added[l.y], added[l.z], added[l.w]);
            let reset = sigmoids(vec4f(x[j.x], x[j.y], x[j.z], x[j.w]) + vec4f(added[j.x], added[j.y], added[j.z], added[j.w]));
            let update = sigmoids(vec4f(x[k.x], x[k.y], x[k.z], x[k.w]) + vec4f(added[k.x], added[k.y], added[k.z], added[k.w]));
            let candidate = tanhs(vec4f(x[l.x], x[l.y], x[l.z], x[l.w]) + reset * from_state);
            let state = vec4f(before[i.x], before[i.y], before[i.z], before[i.w]);
            let result = of_state[column] + vec4f(dy[i.x], dy[i.y], dy[i.z], dy[i.w]);
            let of_result = select(vec4f(), result, has_step);
            let of_candidate = of_result * (1.0 - update) * (1.0 - candidate * candidate);
            let through_update = of_result * (state - candidate) * update * (1.0 - update);
            let through_reset = of_candidate * from_state * reset * (1.0 - reset);
            of_state[column] = of_result * update;
            of_reset[column] = through_reset;
            of_update[column] = through_update;
            of_added[column] = of_candidate * reset;
            for (var s = 0u; s < 4u; s++) {
                if has_step[s] {
                    dx[j[s]] = through_reset[s];
                    dx[k[s]] = through_update[s];
                    dx[l[s]] = of_candidate[s];
                    dadded[j[s]] = through_reset[s];
                    dadded[k[s]] = through_update[s];
                    dadded[l[s]] = of_candidate[s] * reset[s];
                }
            }
        }
        workgroupBarrier();
        for (var column = thread; column < HIDDEN; column += WORKGROUP) {
            var sum = of_state[column];
            let w = column * (3u * HIDDEN);
            for (var k = 0u; k < HIDDEN; k++) {
                sum += weight[w + k] * of_reset[k];
                sum += weight[w + HIDDEN + k] * of_update[k];
                sum += weight[w + 2u * HIDDEN + k] * of_added[k];
            }
            of_state[column] = sum;
        }
        workgroupBarrier();
    }
}
