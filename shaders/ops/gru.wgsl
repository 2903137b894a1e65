// gru: a layer of gated recurrent units. A workgroup takes four sequences step by step, their states in workgroup memory; a thread
// computes columns of all four, so that a weight that was read serves four times.
// in   0 params  1 x (rows, 3 HIDDEN)  2 weight (HIDDEN, 3 HIDDEN): reset gate, update gate, candidate  3 bias (3 HIDDEN)
//      4 sequences (4 groups): first row and length, the longest of a group first; length 0 where there is none
// out  5 y (rows, HIDDEN)
// grid folded groups   needs lib/gru_gates.wgsl   twin src/backend/cpu/ops/gru.rs
// loops over steps end at the length of the longest sequence of a group, those over columns and states at HIDDEN
override HIDDEN: u32 = 64u;

struct Params {
    groups: u32,
    has_bias: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> sequences: array<vec2u>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

const WORKGROUP: u32 = 64u;

// state[k]: number k of the states of the four sequences.
var<workgroup> state: array<vec4f, HIDDEN>;

// Column `column` of x in the four rows.
fn inputs(rows: vec4u, column: u32) -> vec4f {
    let i = rows * (3u * HIDDEN) + column;
    return vec4f(x[i.x], x[i.y], x[i.z], x[i.w]);
}

fn bias_of(column: u32) -> vec4f {
    if params.has_bias != 0u {
        return vec4f(bias[column]);
    }
    return vec4f();
}

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
        state[column] = vec4f();
    }
    workgroupBarrier();
    for (var step = 0u; step < length.x; step++) {
        let goes_on = vec4u(step) < length;
        // A sequence that has ended computes what nobody reads.
        let rows = select(first, first + step, goes_on);
        for (var column = thread; column < HIDDEN; column += WORKGROUP) {
            var reset = bias_of(column);
            var update = bias_of(column + HIDDEN);
            var candidate = bias_of(column + 2u * HIDDEN);
            for (var k = 0u; k < HIDDEN; k++) {
                let before = state[k];
                let w = k * (3u * HIDDEN) + column;
                reset += weight[w] * before;
                update += weight[w + HIDDEN] * before;
                candidate += weight[w + 2u * HIDDEN] * before;
            }
            reset = sigmoids(inputs(rows, column) + reset);
            update = sigmoids(inputs(rows, column + HIDDEN) + update);
            candidate = tanhs(inputs(rows, column + 2u * HIDDEN) + reset * candidate);
            let next = (1.0 - update) * candidate + update * state[column];
            for (var i = 0u; i < 4u; i++) {
                if goes_on[i] {
                    y[rows[i] * HIDDEN + column] = next[i];
                }
            }
        }
        // All have read the states; what a thread has written to y it reads itself.
        workgroupBarrier();
        for (var column = thread; column < HIDDEN; column += WORKGROUP) {
            let i = rows * HIDDEN + column;
            state[column] = vec4f(y[i.x], y[i.y], y[i.z], y[i.w]);
        }
        workgroupBarrier();
    }
}
