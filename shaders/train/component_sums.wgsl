// component_sums: gradients of components of queries or items from those of their products with all components of the other side: to each
// row is added the sum over its list of pairs, and over components of the other side, of derivative times component, in order. A
// workgroup takes a span of numbers of a row, a thread the same column of four components; TERMS terms of the sums at a time pass through
// workgroup memory.
// in   0 params  1 starts (rows + 1): where lists begin  2 list: pair, row of x  3 derivatives (any, plane): of each product, of each pair
//      4 x (any, others, d): components of the other side
// out  5 y (any, own, d): rows first_row ..
// grid folded rows * ceil(ceil(own / 4) * d / span)   twin src/backend/cpu/loss/rows.rs
// loops end with the list, after its share of a tile, after TERMS turns and after 4
struct Params {
    rows: u32,
    own: u32,           // components of a row
    others: u32,        // those of the other side
    d: u32,
    plane: u32,
    own_stride: u32,    // from a component of the row to the next, in rows of derivatives
    other_stride: u32,  // the same of the other side
    x_first: u32,       // row of x
    first_row: u32,
    span: u32,          // at most WORKGROUP, and (BLOCKS - 1) d
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> starts: array<u32>;
@group(0) @binding(2) var<storage, read> list: array<vec2u>;
@group(0) @binding(3) var<storage, read> derivatives: array<f32>;
@group(0) @binding(4) var<storage, read> x: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

const WORKGROUP: u32 = 64u;
const TERMS: u32 = 32u;
const BLOCKS: u32 = 16u;

var<workgroup> tile: array<array<vec4f, BLOCKS>, TERMS>;   // derivatives of four components each
var<workgroup> places: array<u32, TERMS>;                  // where a component of the other side begins

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) grid: vec3u,
    @builtin(local_invocation_index) thread: u32,
) {
    let numbers = (params.own + 3u) / 4u * params.d;
    let spans = (numbers + params.span - 1u) / params.span;
    let index = group.x + group.y * grid.x;
    let row = index / spans;
    if row >= params.rows {
        return;
    }
    let first_number = index % spans * params.span;
    let end_number = min(first_number + params.span, numbers);
    // Threads that have no number do what the last one does, and write nothing.
    let number = min(first_number + thread, end_number - 1u);
    let first_block = first_number / params.d;
    let blocks = (end_number - 1u) / params.d - first_block + 1u;
    let block = number / params.d - first_block;
    let column = number % params.d;
    let first = starts[row];
    let terms = (starts[row + 1u] - first) * params.others;
    var sums: vec4f;
    for (var done = 0u; done < terms; done += TERMS) {
        for (var t = thread; t < TERMS * blocks; t += WORKGROUP) {
            let i = t % TERMS;
            let term = min(done + i, terms - 1u);
            let other = term % params.others;
            let pair = list[first + term / params.others];
            let own = min((first_block + t / TERMS) * 4u + vec4u(0u, 1u, 2u, 3u), vec4u(params.own - 1u));
            let at = (own * params.own_stride + other * params.other_stride) * params.plane + pair.x;
            let values = vec4f(derivatives[at.x], derivatives[at.y], derivatives[at.z], derivatives[at.w]);
            tile[i][t / TERMS] = select(vec4f(), values, done + i < terms);
            places[i] = ((params.x_first + pair.y) * params.others + other) * params.d;
        }
        workgroupBarrier();
        for (var i = 0u; i < TERMS; i++) { sums += tile[i][block] * x[places[i] + column]; }
        workgroupBarrier();
    }
    if first_number + thread >= end_number {
        return;
    }
    for (var c = 0u; c < 4u; c++) {
        let own = (first_block + block) * 4u + c;
        if own < params.own { y[((params.first_row + row) * params.own + own) * params.d + column] += sums[c]; }
    }
}
