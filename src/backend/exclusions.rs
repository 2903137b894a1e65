//! What a scan must pass over.

use std::sync::Arc;

/// One bit per position of an index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bits {
    words: Vec<u32>,
    count: usize,
}

impl Bits {
    /// The set of those of `0..n` that `holds` is true for.
    pub fn new(n: usize, holds: impl Fn(u32) -> bool) -> Bits {
        let mut bits = Bits { words: vec![0; n.div_ceil(32)], count: 0 };
        (0..n as u32).filter(|&position| holds(position)).for_each(|position| bits.insert(position));
        bits
    }

    /// All of `0..n`.
    pub fn all(n: usize) -> Bits {
        let mut words = vec![u32::MAX; n.div_ceil(32)];
        if let Some(last) = words.last_mut().filter(|_| !n.is_multiple_of(32)) {
            *last = (1 << (n % 32)) - 1;
        }
        Bits { words, count: n }
    }

    /// Takes a position below n out.
    pub fn remove(&mut self, position: u32) {
        let word = &mut self.words[position as usize / 32];
        self.count -= usize::from(*word >> (position % 32) & 1 == 1);
        *word &= !(1 << (position % 32));
    }

    /// Adds those of another set of positions below n.
    pub fn unite(&mut self, other: &Bits) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word |= other);
        self.count = self.words.iter().map(|word| word.count_ones() as usize).sum();
    }

    /// Adds a position below n.
    pub fn insert(&mut self, position: u32) {
        let word = &mut self.words[position as usize / 32];
        self.count += usize::from(*word >> (position % 32) & 1 == 0);
        *word |= 1 << (position % 32);
    }

    /// Whether `position` is in the set.
    #[inline]
    pub fn contains(&self, position: u32) -> bool {
        self.words[position as usize / 32] >> (position % 32) & 1 == 1
    }

    /// Size of the set.
    pub fn count(&self) -> usize {
        self.count
    }

    /// 32 positions per word, the first one in the lowest bit.
    pub fn words(&self) -> &[u32] {
        &self.words
    }
}

/// Items that must not be found: for any query (`denied`), and for each one of its own.
#[derive(Clone, Debug, Default)]
pub struct Exclusions {
    /// (B + 1): where each query's list starts in `positions`; empty if no query has one.
    pub offsets: Vec<u32>,
    /// All lists, one after the other; each sorted and unique.
    pub positions: Vec<u32>,
    /// What no query may find: deleted items, and those that a filter shuts out. As long as the index.
    pub denied: Option<Arc<Bits>>,
}

impl Exclusions {
    /// The excluded positions of one query.
    pub fn of(&self, query: usize) -> &[u32] {
        match self.offsets.get(query..query + 2) {
            Some(range) => &self.positions[range[0] as usize..range[1] as usize],
            None => &[],
        }
    }

    /// Whether `query` must not find `position`.
    #[inline]
    pub fn excludes(&self, query: usize, position: u32) -> bool {
        self.denied.as_ref().is_some_and(|denied| denied.contains(position))
            || self.of(query).binary_search(&position).is_ok()
    }

    /// How many of `n_items` items are left for `query`.
    pub fn left(&self, query: usize, n_items: usize) -> usize {
        match &self.denied {
            None => n_items - self.of(query).len(),
            Some(denied) => {
                let own = self.of(query).iter().filter(|&&position| !denied.contains(position)).count();
                n_items - denied.count() - own
            }
        }
    }

    /// These exclusions for `per_query` vectors of each of `n_queries` queries, one after the other.
    pub fn repeated(&self, n_queries: usize, per_query: usize) -> Exclusions {
        self.selected((0..n_queries * per_query).map(|vector| vector / per_query))
    }

    /// Those of some queries, in this order.
    pub fn selected(&self, queries: impl IntoIterator<Item = usize>) -> Exclusions {
        let mut selected = Exclusions { denied: self.denied.clone(), ..Exclusions::default() };
        if !self.offsets.is_empty() {
            selected.offsets.push(0);
            for query in queries {
                selected.positions.extend_from_slice(self.of(query));
                selected.offsets.push(selected.positions.len() as u32);
            }
        }
        selected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_whole_and_lose_and_gain_positions() {
        let mut bits = Bits::all(70);
        assert_eq!(bits, Bits::new(70, |_| true));
        assert_eq!(Bits::all(64), Bits::new(64, |_| true));
        bits.remove(69);
        bits.remove(69);
        bits.remove(3);
        assert_eq!(bits, Bits::new(70, |position| position != 69 && position != 3));
        bits.unite(&Bits::new(70, |position| position == 3 || position == 4));
        assert_eq!(bits, Bits::new(70, |position| position != 69));
    }

    #[test]
    fn what_is_denied_and_what_is_excluded_add_up() {
        let denied = Bits::new(70, |position| position % 32 == 1);
        assert_eq!((denied.count(), denied.words().len()), (3, 3));
        let excluded = Exclusions { offsets: vec![0, 2, 2], positions: vec![5, 33], denied: Some(Arc::new(denied)) };
        let of_first: Vec<u32> = (0..70).filter(|&position| excluded.excludes(0, position)).collect();
        assert_eq!(of_first, [1, 5, 33, 65]);
        assert_eq!((excluded.left(0, 70), excluded.left(1, 70)), (66, 67));
        let repeated = excluded.repeated(2, 3);
        assert_eq!((repeated.of(2), repeated.of(3)), (&[5, 33][..], &[][..]));
        assert!(repeated.excludes(5, 65));
        let selected = excluded.selected([1, 0]);
        assert_eq!((selected.of(0), selected.of(1), selected.denied.is_some()), (&[][..], &[5, 33][..], true));
    }
}
