// list_params: the parameters of the kernels that cut or sort hit lists.
// in   0 params
struct Params {
    k: u32,
    capacity: u32,   // hits that a list has room for
}

@group(0) @binding(0) var<uniform> params: Params;
