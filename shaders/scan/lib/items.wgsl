// items: the full-precision numbers of an item, which lie behind its values.
// needs constant TILE; lib/table_*.wgsl; of the kernel: binding items (tile, item quads, TILE)

// Number `index` of those from quad `first_quad` of the item's record on.
fn number(item_base: u32, first_quad: u32, index: u32) -> f32 {
    return number_of(items[item_base + (first_quad + index / NUMBERS) * TILE], index % NUMBERS);
}
