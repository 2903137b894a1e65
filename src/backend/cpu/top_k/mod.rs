//! The best k items of each query: all threads share one list for each ([`shared`]), to which each adds what it has found ([`local`]) now
//! and then. Scores are compared with the threshold of their query, the k-th score so far, as soon as they are computed ([`filter`]).

pub mod filter;
mod key;
pub mod local;
pub mod local_hits;
pub mod shared;
