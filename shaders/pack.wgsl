// pack: rows of some groups of values -> quads interleaved over the items of a tile, as the scan reads them.
//
//     rows (n_rows, groups, width)  ->  table (tile, record, INTERLEAVE) of quads, from first_quad on in each record
//
// A quad is four values of one row, padded with zeros; HALVES packs it into two words, 16 bits a value, clamped to the
// range of 16-bit floats. With SPLIT_QUADS the values of a quad are interleaved too: (tile, record, 4, INTERLEAVE).
// One thread writes one word.
// in  0 params  1 rows    out 2 table
// grid folded words / 256   twin the tables that the scans of tests/gpu_scan.rs are compared through
override INTERLEAVE: u32 = 64u;
override SPLIT_QUADS: bool = false;
override HALVES: bool = false;

struct Params {
    n_rows: u32,
    groups: u32,
    width: u32,         // values of one group
    n_tiles: u32,       // n_rows / INTERLEAVE, rounded up
    first_tile: u32,    // in the table
    record_quads: u32,  // of one table record
    first_quad: u32,    // of these values in a record
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> rows: array<f32>;
@group(0) @binding(2) var<storage, read_write> table: array<u32>;

fn value(row: u32, quad: u32, component: u32) -> f32 {
    let quads = (params.width + 3u) / 4u;
    let column = quad % quads * 4u + component;
    if row >= params.n_rows || column >= params.width { return 0.0; }
    return rows[(row * params.groups + quad / quads) * params.width + column];
}

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
    let index = id.y * grid.x * 256u + id.x;
    let words = select(4u, 2u, HALVES);
    let quads = params.groups * ((params.width + 3u) / 4u);
    if index >= params.n_tiles * quads * INTERLEAVE * words { return; }

    let inner = index % (INTERLEAVE * words);
    let word = select(inner % words, inner / INTERLEAVE, SPLIT_QUADS);
    let lane = select(inner / words, inner % INTERLEAVE, SPLIT_QUADS);
    let quad = index / (INTERLEAVE * words) % quads;
    let tile = index / (INTERLEAVE * words) / quads;

    let row = tile * INTERLEAVE + lane;
    var bits: u32;
    if HALVES {
        let pair = vec2f(value(row, quad, word * 2u), value(row, quad, word * 2u + 1u));
        bits = pack2x16float(clamp(pair, vec2f(-65504.0), vec2f(65504.0)));
    } else {
        bits = bitcast<u32>(value(row, quad, word));
    }
    let record = (params.first_tile + tile) * params.record_quads + params.first_quad + quad;
    table[record * INTERLEAVE * words + inner] = bits;
}
