//! A hit as an integer: the order key of its score, then the complement of its position, so that greater is better.

use crate::backend::order_key;

/// The key of a hit; greater than 0.
pub fn key_of(position: u32, score: f32) -> u64 {
    u64::from(order_key::order_key(score)) << 32 | u64::from(!position)
}

/// The position of a hit.
pub fn position_of(key: u64) -> u32 {
    !(key as u32)
}

/// The score of a hit.
pub fn score_of(key: u64) -> f32 {
    order_key::score_of((key >> 32) as u32)
}
