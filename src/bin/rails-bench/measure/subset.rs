//! Which items a smaller index holds.

/// The ids in an order that depends on nothing but their number, so that the first n of them are a subset without a bias
/// (lists are often sorted by age or popularity), the same on every machine, and each subset holds the smaller ones.
pub fn shuffled(ids: &[u32]) -> Vec<u32> {
    let mut ids = ids.to_vec();
    let mut state = 0x7261_696c_732d_7767_u64;
    for last in (1..ids.len()).rev() {
        let other = (split_mix(&mut state) % (last as u64 + 1)) as usize;
        ids.swap(last, other);
    }
    ids
}

/// The generator SplitMix64 (Steele, Lea and Flood, 2014).
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_split_mix() {
        // First outputs for the seed 1234567, as published with the algorithm.
        let mut state = 1_234_567;
        let first = [(); 3].map(|()| split_mix(&mut state));
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn every_id_once_and_no_bias() {
        let ids: Vec<u32> = (0..10_000).collect();
        let mixed = shuffled(&ids);
        assert_eq!(mixed, shuffled(&ids));
        let mean = mixed[..1000].iter().sum::<u32>() / 1000;
        assert!((4500..5500).contains(&mean), "the first tenth has mean {mean}");
        let mut sorted = mixed;
        sorted.sort_unstable();
        assert_eq!(sorted, ids);
        assert_eq!(shuffled(&[]), [0; 0]);
    }
}
