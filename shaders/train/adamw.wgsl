// adamw: one step of AdamW.
// in   0 params  1 gradient: (n), or (any, width) with has_places  2 places (n / width): row of the gradient for a row, or NONE
// out  3 values (n)  4 first (n)  5 second (n): moments, all changed in place
// grid folded ceil(n / WORKGROUP)   needs lib/element_wise.wgsl   twin src/backend/cpu/ops/adamw.rs
struct Params {
    n: u32,
    width: u32,
    has_gradient: u32,
    has_places: u32,
    lazy: u32,             // whether rows without a gradient stay as they are
    keep: f32,
    step_size: f32,
    inverse_root: f32,
    gradient_scale: f32,
    keep_first: f32,       // beta 1
    keep_second: f32,      // beta 2
    eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> gradient: array<f32>;
@group(0) @binding(2) var<storage, read> places: array<u32>;
@group(0) @binding(3) var<storage, read_write> values: array<f32>;
@group(0) @binding(4) var<storage, read_write> first: array<f32>;
@group(0) @binding(5) var<storage, read_write> second: array<f32>;

const NONE: u32 = 0xffffffffu;

fn element(i: u32) {
    var g = 0.0;
    if params.has_places != 0u {
        let place = places[i / params.width];
        if place != NONE {
            g = gradient[place * params.width + i % params.width];
        } else if params.lazy != 0u {
            return;
        }
    } else if params.has_gradient != 0u {
        g = gradient[i];
    }
    g *= params.gradient_scale;
    let moment = first[i] + (1.0 - params.keep_first) * (g - first[i]);
    let square = params.keep_second * second[i] + (1.0 - params.keep_second) * g * g;
    first[i] = moment;
    second[i] = square;
    values[i] = values[i] * params.keep - params.step_size * moment / (sqrt(square) * params.inverse_root + params.eps);
}
