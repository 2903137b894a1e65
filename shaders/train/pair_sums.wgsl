// pair_sums: gradients of queries or items from those of products of their numbers with those of the other side: to each row is added the
// sum over its list of pairs of derivative times row of the other side, in order.
// in   0 params  1 starts (rows + 1): where lists begin  2 list: pair, row of x  3 derivatives (width / inner, plane): of each pair, for
//      `inner` columns together  4 x (any, width): rows of the other side, if has_x; else 1
// out  5 y (any, width): rows first_row ..
// grid folded ceil(n / WORKGROUP), n = rows * width   needs lib/element_wise.wgsl   twin src/backend/cpu/loss/by_item.rs
// the loop ends with the list
struct Params {
    n: u32,
    width: u32,
    inner: u32,
    plane: u32,
    has_x: u32,
    x_first: u32,   // row of x
    first_row: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> starts: array<u32>;
@group(0) @binding(2) var<storage, read> list: array<vec2u>;
@group(0) @binding(3) var<storage, read> derivatives: array<f32>;
@group(0) @binding(4) var<storage, read> x: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

fn element(i: u32) {
    let row = i / params.width;
    let column = i % params.width;
    let plane = column / params.inner * params.plane;
    let end = starts[row + 1u];
    var sum = 0.0;
    for (var k = starts[row]; k < end; k++) {
        let pair = list[k];
        var value = 1.0;
        if params.has_x != 0u { value = x[(params.x_first + pair.y) * params.width + column]; }
        sum += derivatives[plane + pair.x] * value;
    }
    y[params.first_row * params.width + i] += sum;
}
