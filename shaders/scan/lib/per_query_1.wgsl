// One query per thread.
const QUERIES_PER_THREAD: u32 = 1u;
alias PerQuery = f32;
fn of_query(values: PerQuery, lane: u32) -> f32 { return values; }

// Packed bytes of the queries, and their products with those of an item.
alias PerQueryWord = u32;
alias PerQueryInt = i32;
fn dots(words: PerQueryWord, word: u32) -> PerQueryInt { return dot4I8Packed(words, word); }
