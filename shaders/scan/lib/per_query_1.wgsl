// per_query_1: one query per thread. What a thread has for each of its queries is a PerQuery.
const QUERIES_PER_THREAD: u32 = 1u;
alias PerQuery = f32;
fn of_query(values: PerQuery, query: u32) -> f32 { return values; }

// Packed bytes of the queries, and their products with those of an item.
alias PerQueryWord = u32;
alias PerQueryInt = i32;
fn dots(words: PerQueryWord, word: u32) -> PerQueryInt { return dot4I8Packed(words, word); }
