// order_key: scores as integers of the same order, and back.
// twin src/backend/order_key.rs

// Greater score, greater key; -0 and 0 are the same score, and no number has key 0.
fn order_key(score: f32) -> u32 {
    let bits = bitcast<u32>(score);
    if (bits >> 31u) == 0u { return bits | 0x80000000u; }
    return select(~bits, 0x80000000u, bits == 0x80000000u);
}

// The bits of the score of a key: where they are written as such, no compiler has an opinion on infinities.
fn score_bits(key: u32) -> u32 { return select(~key, key & 0x7fffffffu, key >> 31u == 1u); }
