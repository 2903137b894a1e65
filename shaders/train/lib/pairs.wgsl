// pairs: pairs of a position and an item, of a round of positions with `per_position` pairs each. What there is for each pair of all
// positions, their positives and their negatives, lies in (P, slots).
// needs of the kernel: params.first_position, params.per_position, params.slots, params.first_slot
fn position_of(pair: u32) -> u32 {
    return params.first_position + pair / params.per_position;
}

fn slot_of(pair: u32) -> u32 {
    return position_of(pair) * params.slots + params.first_slot + pair % params.per_position;
}

// The number among all pairs of its kind, by which dropout counts.
fn number_of(pair: u32) -> u32 {
    return params.first_position * params.per_position + pair;
}
