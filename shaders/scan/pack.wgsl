// pack: rows of some groups of words -> runs of quads interleaved over the rows of a tile, as the scan reads them.
//
//     rows (n_rows, groups, width)  ->  table (tile, record / RUN, INTERLEAVE, RUN) of quads, from first_quad on in each record
//
// A quad is QUAD_WORDS words of one group, padded with zeros: four values of 32, 16 or 8 bits. With SPLIT_QUADS the words
// of a quad are interleaved too, and RUN is 1: (tile, record, QUAD_WORDS, INTERLEAVE). One thread writes one word.
// in  0 params  1 rows    out 2 table
// grid folded words / 256   twin tests/gpu/scan.rs
override INTERLEAVE: u32 = 64u;
override SPLIT_QUADS: bool = false;
override QUAD_WORDS: u32 = 4u;
override RUN: u32 = 1u;

struct Params {
    n_rows: u32,
    groups: u32,
    width: u32,         // words of one group
    n_tiles: u32,       // n_rows / INTERLEAVE, rounded up
    first_tile: u32,    // in the table
    record_quads: u32,  // of one table record
    first_quad: u32,    // of these words in a record
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> rows: array<u32>;
@group(0) @binding(2) var<storage, read_write> table: array<u32>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
    let index = id.y * grid.x * 256u + id.x;
    let group_quads = (params.width + QUAD_WORDS - 1u) / QUAD_WORDS;
    let quads = params.groups * group_quads;
    let tile_words = INTERLEAVE * QUAD_WORDS;
    if index >= params.n_tiles * quads * tile_words { return; }

    let inner = index % tile_words;
    let word = select(inner % QUAD_WORDS, inner / INTERLEAVE, SPLIT_QUADS);
    let row_in_tile = select(inner / QUAD_WORDS, inner % INTERLEAVE, SPLIT_QUADS);
    let quad = index / tile_words % quads;
    let tile = index / tile_words / quads;

    let row = tile * INTERLEAVE + row_in_tile;
    let column = quad % group_quads * QUAD_WORDS + word;
    var value = 0u;
    if row < params.n_rows && column < params.width {
        value = rows[(row * params.groups + quad / group_quads) * params.width + column];
    }
    let of_record = params.first_quad + quad;
    let run = (params.first_tile + tile) * params.record_quads + of_record / RUN * RUN;
    let of_run = (row_in_tile * RUN + of_record % RUN) * QUAD_WORDS + word;
    table[run * tile_words + select(of_run, inner, SPLIT_QUADS)] = value;
}
