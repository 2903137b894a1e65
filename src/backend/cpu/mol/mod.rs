//! Mixture-of-Logits of one query and one tile of items.

pub mod gradient;
pub mod kernel;
