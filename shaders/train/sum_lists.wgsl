// sum_lists: each row is the sum of the rows of x in its list, times a coefficient each, in order of the list: gradients of tables
// whose rows were looked up, and of inner products.
// in   0 params  1 starts (rows + 1): where lists begin  2 list: see divisor  3 coefficients  4 x (any, width)
// out  5 y (rows, width)
// grid folded ceil(n / WORKGROUP), n = rows * width   needs lib/element_wise.wgsl   twin src/backend/cpu/ops/gradient/table.rs
// the loop ends with the list
struct Params {
    n: u32,
    width: u32,
    scale: f32,
    divisor: u32,            // 0: a list has rows of x; otherwise pairs, of which that many belong to a row of x
    has_coefficients: u32,   // one for each entry of a list, or pair
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> starts: array<u32>;
@group(0) @binding(2) var<storage, read> list: array<u32>;
@group(0) @binding(3) var<storage, read> coefficients: array<f32>;
@group(0) @binding(4) var<storage, read> x: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

fn element(i: u32) {
    let row = i / params.width;
    let column = i % params.width;
    let end = starts[row + 1u];
    var sum = 0.0;
    for (var k = starts[row]; k < end; k++) {
        var source = list[k];
        var pair = k;
        if params.divisor != 0u {
            pair = source;
            source = pair / params.divisor;
        }
        var coefficient = params.scale;
        if params.has_coefficients != 0u { coefficient *= coefficients[pair]; }
        sum += coefficient * x[source * params.width + column];
    }
    y[i] = sum;
}
