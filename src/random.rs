//! Random numbers by position, not by turn.
//!
//! What is drawn depends on a seed, a step, a site and the number of an element, so it is the same for any number of threads, on
//! every device, and after a training run was resumed; and a mask need not be stored, because it can be drawn again.
//!
//! The generator is Threefry-2x32 with 20 rounds (Salmon et al., *Parallel random numbers: as easy as 1, 2, 3*, SC 2011), which
//! adds, rotates and xors 32-bit words.

use pulp::{Arch, Simd, WithSimd};

/// Elements whose bits of a [`Dropout`] come from [`LANES`] blocks, side by side.
const GROUP: u64 = 4 * LANES as u64;

/// Blocks of a group.
pub const LANES: usize = 16;

/// Where all random numbers of a training run come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Random {
    key: [u32; 2],
}

/// The random numbers of one step at one site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    key: [u32; 2],
}

/// Inverted dropout: an element is set to zero with the probability `rate`, and divided by `1 - rate` otherwise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    stream: Stream,
    rate: f32,
}

impl Random {
    /// The generator of this seed.
    pub fn new(seed: u64) -> Random {
        Random { key: words(seed) }
    }

    /// The numbers of a step at a site: a layer's dropout, the draw of negatives. No two pairs share theirs.
    pub fn stream(self, step: u32, site: u32) -> Stream {
        let [[a], [b]] = threefry(self.key, [[step], [site]]);
        Stream { key: [a, b] }
    }
}

impl Stream {
    /// The two words of the blocks `first ..`, as many as `N`: two arrays of one word per block, as SIMD lanes.
    #[inline(always)]
    pub fn blocks<const N: usize>(self, first: u64) -> [[u32; N]; 2] {
        let (mut low, mut high) = ([0; N], [0; N]);
        for ((low, high), lane) in low.iter_mut().zip(&mut high).zip(0..) {
            [*low, *high] = words(first.wrapping_add(lane));
        }
        threefry(self.key, [low, high])
    }

    /// 32 random bits: word `element % 2` of block `element / 2`.
    pub fn bits(self, element: u64) -> u32 {
        let [[first], [second]] = self.blocks(element / 2);
        if element.is_multiple_of(2) { first } else { second }
    }

    /// A number in 0..1, a multiple of 2^-24.
    pub fn uniform(self, element: u64) -> f32 {
        (self.bits(element) >> 8) as f32 / (1 << 24) as f32
    }

    /// An integer in 0..n, for n >= 1. No integer is likelier than another by more than n / 2^32 of its probability.
    pub fn below(self, element: u64, n: u32) -> u32 {
        scaled(self.bits(element), n)
    }

    /// [`Stream::below`] of the elements `first ..`, as many as `out`, in a fraction of the time.
    ///
    /// # Panics
    /// If `first` is odd.
    pub fn fill_below(self, first: u64, n: u32, out: &mut [u32]) {
        assert!(first.is_multiple_of(2), "both words of a block are used");
        Arch::new().dispatch(FillBelow { stream: self, first, n, out });
    }

    /// A number of the standard normal distribution (Box and Muller), from both words of block `element`.
    pub fn normal(self, element: u64) -> f64 {
        let [[a], [b]] = self.blocks(element);
        // In (0, 1]: the logarithm is finite.
        let radius = (-2.0 * ((f64::from(a) + 1.0) / 4_294_967_296.0).ln()).sqrt();
        radius * (f64::from(b) / 4_294_967_296.0 * std::f64::consts::TAU).cos()
    }

    /// Puts `values` into a random order (Fisher and Yates).
    pub fn shuffle<T>(self, values: &mut [T]) {
        for last in (1..values.len()).rev() {
            values.swap(last, self.below(last as u64, last as u32 + 1) as usize);
        }
    }
}

struct FillBelow<'a> {
    stream: Stream,
    first: u64,
    n: u32,
    out: &'a mut [u32],
}

impl WithSimd for FillBelow<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let FillBelow { stream, first, n, out } = self;
        let mut drawn = [0; 2 * LANES];
        for (chunk, out) in (0..).zip(out.chunks_mut(drawn.len())) {
            let [firsts, seconds] = stream.blocks::<LANES>(first / 2 + chunk * LANES as u64);
            for lane in 0..LANES {
                drawn[2 * lane] = scaled(firsts[lane], n);
                drawn[2 * lane + 1] = scaled(seconds[lane], n);
            }
            out.copy_from_slice(&drawn[..out.len()]);
        }
    }
}

impl Dropout {
    /// Dropout with the numbers of `stream`, at a rate in 0..1, which is rounded to a multiple of 2^-16 where elements are chosen.
    pub fn new(stream: Stream, rate: f32) -> Dropout {
        Dropout { stream, rate }
    }

    /// The probability of an element to be set to zero.
    pub fn rate(self) -> f32 {
        self.rate
    }

    /// The key of its numbers.
    #[cfg(feature = "gpu")]
    pub(crate) fn key(self) -> [u32; 2] {
        self.stream.key
    }

    /// What an element that is kept is multiplied by: 1 / (1 - rate).
    #[inline(always)]
    pub fn scale(self) -> f32 {
        1.0 / (1.0 - self.rate)
    }

    /// Sixteen random bits below this set an element to zero.
    #[inline(always)]
    pub fn threshold(self) -> u32 {
        (self.rate * 65536.0).round() as u32
    }

    /// Whether an element is kept. Its bits are a half of a word: of 64 elements in a row, 16 have the lower half of the first
    /// words of 16 blocks, 16 the upper half, and 32 the halves of the second words, so that neighbours are SIMD lanes.
    pub fn keep(self, element: u64) -> bool {
        let (group, place) = (element / GROUP, element % GROUP);
        let [[first], [second]] = self.stream.blocks(group * LANES as u64 + place % LANES as u64);
        let word = if place < GROUP / 2 { first } else { second };
        let bits = if (place / LANES as u64).is_multiple_of(2) { word & 0xffff } else { word >> 16 };
        bits >= self.threshold()
    }

    /// Multiplies the elements `first ..` by 0 or by [`Dropout::scale`].
    #[inline(always)]
    pub fn apply(self, first: u64, values: &mut [f32]) {
        let mut factors = [0.0; GROUP as usize];
        let mut rest = values;
        let mut next = first;
        while !rest.is_empty() {
            self.factors(next / GROUP, &mut factors);
            let place = (next % GROUP) as usize;
            let n = rest.len().min(factors.len() - place);
            let (values, others) = rest.split_at_mut(n);
            for (value, factor) in values.iter_mut().zip(&factors[place..]) {
                *value *= factor;
            }
            (rest, next) = (others, next + n as u64);
        }
    }

    /// What the 64 elements of a group are multiplied by.
    #[inline(always)]
    pub fn factors(self, group: u64, factors: &mut [f32; GROUP as usize]) {
        let [first, second] = self.stream.blocks::<LANES>(group * LANES as u64);
        let (threshold, scale) = (self.threshold(), self.scale());
        for lane in 0..LANES {
            let of = |bits: u32| if bits >= threshold { scale } else { 0.0 };
            factors[lane] = of(first[lane] & 0xffff);
            factors[LANES + lane] = of(first[lane] >> 16);
            factors[2 * LANES + lane] = of(second[lane] & 0xffff);
            factors[3 * LANES + lane] = of(second[lane] >> 16);
        }
    }
}

/// 32 random bits as an integer in 0..n.
#[inline(always)]
fn scaled(bits: u32, n: u32) -> u32 {
    ((u64::from(bits) * u64::from(n)) >> 32) as u32
}

/// The lower and the upper 32 bits.
#[inline(always)]
fn words(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

/// Threefry-2x32-20 of `N` counters: their first words, then their second.
#[inline(always)]
fn threefry<const N: usize>(key: [u32; 2], [mut a, mut b]: [[u32; N]; 2]) -> [[u32; N]; 2] {
    const ROTATIONS: [[u32; 4]; 2] = [[13, 15, 26, 6], [17, 29, 16, 24]];
    let keys = [key[0], key[1], 0x1bd1_1bda ^ key[0] ^ key[1]];
    for lane in 0..N {
        a[lane] = a[lane].wrapping_add(keys[0]);
        b[lane] = b[lane].wrapping_add(keys[1]);
    }
    for round in 0..5 {
        for rotation in ROTATIONS[round % 2] {
            for lane in 0..N {
                a[lane] = a[lane].wrapping_add(b[lane]);
                b[lane] = b[lane].rotate_left(rotation) ^ a[lane];
            }
        }
        for lane in 0..N {
            a[lane] = a[lane].wrapping_add(keys[(round + 1) % 3]);
            b[lane] = b[lane].wrapping_add(keys[(round + 2) % 3]).wrapping_add(round as u32 + 1);
        }
    }
    [a, b]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers_of_the_authors() {
        for (key, counter, expected) in [
            ([0; 2], [0; 2], [0x6b20_0159, 0x99ba_4efe]),
            ([u32::MAX; 2], [u32::MAX; 2], [0x1cb9_96fc, 0xbb00_2be7]),
            ([0x1319_8a2e, 0x0370_7344], [0x243f_6a88, 0x85a3_08d3], [0xc492_3a9c, 0x483d_f7a0]),
        ] {
            let [[a], [b]] = threefry(key, counter.map(|word| [word]));
            assert_eq!([a, b], expected);
        }
    }

    #[test]
    fn numbers_differ_by_seed_step_site_and_element() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in [0, 1, 1 << 32] {
            for step in 0..5 {
                for site in 0..5 {
                    let stream = Random::new(seed).stream(step, site);
                    (0..6).chain([1 << 33, 1 << 34]).for_each(|element| _ = seen.insert(stream.bits(element)));
                }
            }
        }
        assert_eq!(seen.len(), 3 * 5 * 5 * 8);
    }

    #[test]
    fn distributions_have_their_moments() {
        let stream = Random::new(7).stream(3, 1);
        let n = 40_000;
        let mean = |of: &dyn Fn(u64) -> f64| (0..n).map(of).sum::<f64>() / n as f64;
        // Five standard deviations each.
        assert!((mean(&|i| f64::from(stream.uniform(i))) - 0.5).abs() < 0.0073);
        assert!(mean(&|i| stream.normal(i)).abs() < 0.025);
        assert!((mean(&|i| stream.normal(i).powi(2)) - 1.0).abs() < 0.036);
        let mut counts = [0; 6];
        (0..n).for_each(|i| counts[stream.below(i, 6) as usize] += 1);
        assert!(counts.iter().all(|&count: &i32| (count - 6667).abs() < 373), "{counts:?}");
        assert_eq!((0..50).map(|i| stream.below(i, 1)).max(), Some(0));
    }

    #[test]
    fn dropout_keeps_its_share_and_the_mean() {
        for rate in [0.0, 0.2, 0.5, 0.8] {
            let dropout = Dropout::new(Random::new(1).stream(2, 3), rate);
            let n = 40_000u64;
            let kept = (0..n).filter(|&i| dropout.keep(i)).count() as f64 / n as f64;
            let (deviation, rate) = ((f64::from(rate) * (1.0 - f64::from(rate)) / n as f64).sqrt(), f64::from(rate));
            assert!((kept - (1.0 - rate)).abs() <= 5.0 * deviation, "{rate}: {kept} kept");
            assert!((f64::from(dropout.scale()) * (1.0 - rate) - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn elements_are_kept_alike_alone_and_in_rows_that_begin_anywhere() {
        let dropout = Dropout::new(Random::new(9).stream(0, 5), 0.3);
        for (first, n) in [(0, 64), (0, 1), (63, 2), (17, 300), (1 << 36, 70), (5, 0)] {
            let mut values: Vec<f32> = (1..=n).map(|i| i as f32).collect();
            dropout.apply(first, &mut values);
            for (i, value) in values.into_iter().enumerate() {
                let factor = if dropout.keep(first + i as u64) { dropout.scale() } else { 0.0 };
                assert_eq!(value, (i + 1) as f32 * factor, "{first} + {i}");
            }
        }
    }

    #[test]
    fn integers_are_drawn_alike_alone_and_in_rows() {
        let stream = Random::new(9).stream(0, 5);
        for (first, len) in [(0, 64), (0, 1), (2, 31), (34, 33), (1 << 36, 70), (6, 0)] {
            let mut drawn = vec![0; len];
            stream.fill_below(first, 1000, &mut drawn);
            let alone = (first..first + len as u64).map(|element| stream.below(element, 1000));
            assert_eq!(drawn, alone.collect::<Vec<_>>(), "{first} + {len}");
        }
    }

    #[test]
    fn every_order_is_as_likely() {
        let mut counts = std::collections::BTreeMap::new();
        for step in 0..2400 {
            let mut values = [0, 1, 2, 3];
            Random::new(4).stream(step, 0).shuffle(&mut values);
            *counts.entry(values).or_insert(0) += 1;
        }
        // 24 orders, 100 of each expected.
        assert!(counts.len() == 24 && counts.values().all(|&count| (50..150).contains(&count)), "{counts:?}");
    }
}
