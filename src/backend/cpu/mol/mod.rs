//! Mixture-of-Logits of one query and one tile of items (arXiv 2407.15462, equations 2 to 5).
//!
//! A query ([`query`]; those of a batch: [`query_side`]) and a tile ([`item_side`]) make logits ([`logits`]), these make scores
//! ([`mixture`]), an upper bound of the scores ([`bound`]) or, for the tangent, their derivatives ([`gradient`]). Intermediate values ([`scratch`]) of a tile stay in the first-level
//! cache.

pub mod bound;
pub mod gradient;
pub mod item_side;
pub mod kernel;
pub mod logits;
pub mod mixture;
pub mod query;
pub mod query_side;
pub mod scratch;

#[cfg(test)]
mod tests;
