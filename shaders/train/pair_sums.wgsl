// pair_sums: gradients of queries or items, from derivatives with respect to products of their vectors with those of the other side: each
// row gets, added to what is there, the sum over its list of pairs, and over vectors of the other side, of derivative times vector, in order.
// in   0 params  1 starts (rows + 1): where lists begin  2 list: see divisor  3 derivatives (any, plane): of each product, of each pair
//      4 x (any, x_row): rows of the other side, if has_x; else 1
// out  5 y (any, width): rows first_row ..
// grid folded ceil(n / WORKGROUP), n = rows * width   needs lib/element_wise.wgsl   twin src/backend/cpu/loss/rows.rs
// loops end with the list and after `count` turns
struct Params {
    n: u32,
    width: u32,
    inner: u32,         // width of a vector: a row has width / inner
    count: u32,         // vectors of the other side
    plane: u32,
    own_stride: u32,    // from a vector of the row to the next, in rows of derivatives
    other_stride: u32,  // the same of vectors of the other side
    divisor: u32,       // 0: a list has rows of x, its places are pairs; else it has pairs, of which that many belong to a row of x
    has_x: u32,
    x_first: u32,       // row of x
    x_row: u32,
    x_own: u32,         // from a vector of the row to the next, in x
    x_other: u32,       // from a vector of the other side to the next, in x
    first_row: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> starts: array<u32>;
@group(0) @binding(2) var<storage, read> list: array<u32>;
@group(0) @binding(3) var<storage, read> derivatives: array<f32>;
@group(0) @binding(4) var<storage, read> x: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

fn element(i: u32) {
    let row = i / params.width;
    let own = i % params.width / params.inner;
    let column = own * params.x_own + i % params.inner;
    let end = starts[row + 1u];
    var sum = 0.0;
    for (var k = starts[row]; k < end; k++) {
        var source = list[k];
        var pair = k;
        if params.divisor != 0u {
            pair = source;
            source = pair / params.divisor;
        }
        let first = (params.x_first + source) * params.x_row + column;
        for (var other = 0u; other < params.count; other++) {
            let derivative = derivatives[(own * params.own_stride + other * params.other_stride) * params.plane + pair];
            if params.has_x != 0u {
                sum += derivative * x[first + other * params.x_other];
            } else {
                sum += derivative;
            }
        }
    }
    y[params.first_row * params.width + i] += sum;
}
