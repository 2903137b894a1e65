// items: where the quads of an item are, and the full-precision numbers that lie behind its values. RUN quads of an item lie side by side:
// one, so that threads that take an item each read side by side; or a cache line of them, in tables of which single items are read, too.
// needs constants TILE, RUN, D4, ITEM_QUADS; lib/table_*.wgsl; of the kernel: binding items (tile, item quads / RUN, TILE, RUN)

// Where the first quad of an item of a tile is.
fn item_of(tile: u32, item: u32) -> u32 { return tile * ITEM_QUADS * TILE + item * RUN; }

// Where quad `quad` of the item is that begins there.
fn quad_of(item_base: u32, quad: u32) -> u32 { return item_base + distance(quad); }

// From the first quad of an item to quad `quad`.
fn distance(quad: u32) -> u32 { return (quad & ~(RUN - 1u)) * TILE + (quad & (RUN - 1u)); }

// Where quad `d` of vector `vector` of the item is: at the sum of two distances, one of which is a constant, if runs and vectors end together.
fn quad_of_vector(item_base: u32, vector: u32, d: u32) -> u32 {
    if D4 % RUN == 0u || RUN % D4 == 0u { return item_base + distance(d) + distance(vector * D4); }
    return quad_of(item_base, vector * D4 + d);
}

// Number `index` of those from quad `first_quad` of the item's record on.
fn number(item_base: u32, first_quad: u32, index: u32) -> f32 {
    return number_of(items[quad_of(item_base, first_quad + index / NUMBERS)], index % NUMBERS);
}
