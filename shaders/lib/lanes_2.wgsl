// Two queries per thread: one load of an item or of a weight serves them all.
const LANES: u32 = 2u;
alias Lanes = vec2f;
fn lane_of(values: Lanes, lane: u32) -> f32 { return values[lane]; }

// Packed bytes of the queries, and their products with those of an item.
alias Words = vec2u;
alias Integers = vec2i;
fn dots(words: Words, word: u32) -> Integers {
    return Integers(dot4I8Packed(words.x, word), dot4I8Packed(words.y, word));
}
