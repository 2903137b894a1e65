// One query per thread.
const LANES: u32 = 1u;
alias Lanes = f32;
fn lane_of(values: Lanes, lane: u32) -> f32 { return values; }

// Packed bytes of the queries, and their products with those of an item.
alias Words = u32;
alias Integers = i32;
fn dots(words: Words, word: u32) -> Integers { return dot4I8Packed(words, word); }
