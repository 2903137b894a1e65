//! The best k scores of each query.

pub mod filter;
pub mod shared;
