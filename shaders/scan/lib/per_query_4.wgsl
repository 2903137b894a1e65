// per_query_4: four queries per thread. What a thread has for each of them is a PerQuery: one load of an item or of a weight serves them all.
const QUERIES_PER_THREAD: u32 = 4u;
alias PerQuery = vec4f;
fn of_query(values: PerQuery, query: u32) -> f32 { return values[query]; }

// Packed bytes of the queries, and their products with those of an item.
alias PerQueryWord = vec4u;
alias PerQueryInt = vec4i;
fn dots(words: PerQueryWord, word: u32) -> PerQueryInt {
    return PerQueryInt(
        dot4I8Packed(words.x, word), dot4I8Packed(words.y, word), dot4I8Packed(words.z, word), dot4I8Packed(words.w, word));
}
