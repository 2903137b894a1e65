//! Scores as integers, for selections that compare integers. Twin of `order_key` in the shaders.

/// An integer that is greater for a greater score, the same for 0 and -0, and greater than 0.
pub fn order_key(score: f32) -> u32 {
    // Turns -0 into 0.
    let bits = (score + 0.0).to_bits();
    if bits >> 31 == 0 { bits | 0x8000_0000 } else { !bits }
}

/// The score of a key.
pub fn score_of(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key & 0x7fff_ffff } else { !key })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_ordered_like_scores_and_map_back() {
        let scores = [f32::NEG_INFINITY, f32::MIN, -1.5, -1e-40, 0.0, 1e-40, 1.5, f32::MAX, f32::INFINITY];
        assert!(scores.is_sorted_by(|a, b| order_key(*a) < order_key(*b)));
        assert!(scores.iter().all(|&score| score_of(order_key(score)).to_bits() == score.to_bits()));
        assert_eq!(order_key(-0.0), order_key(0.0));
        assert!(order_key(f32::NEG_INFINITY) > 0);
    }
}
