//! Text ids, each stored once and numbered from 0 in the order of their first appearance.

use std::collections::HashMap;

#[derive(Default)]
pub(super) struct Interner {
    numbers: HashMap<Box<str>, u32>,
}

impl Interner {
    /// The number of `id`. (2^32 distinct ids would fill hundreds of gigabytes before the count wraps.)
    pub fn number(&mut self, id: &str) -> u32 {
        if let Some(&number) = self.numbers.get(id) {
            return number;
        }
        let number = self.numbers.len() as u32;
        self.numbers.insert(id.into(), number);
        number
    }

    /// How many ids there are.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// The ids by their numbers.
    pub fn texts(&self) -> Vec<&str> {
        let mut texts = vec![""; self.len()];
        self.numbers.iter().for_each(|(id, &number)| texts[number as usize] = id);
        texts
    }

    /// Per number the rank of its id, from 0, among the ids that are `kept`, sorted as strings: pandas' categorical
    /// codes. Ids that are not kept get a rank that must not be used.
    pub fn ranks(&self, kept: impl Fn(u32) -> bool) -> Vec<u32> {
        let mut sorted: Vec<(&str, u32)> = self.numbers.iter().map(|(id, &number)| (&**id, number)).collect();
        sorted.retain(|&(_, number)| kept(number));
        sorted.sort_unstable();
        let mut ranks = vec![0; self.len()];
        for (rank, &(_, number)) in (0..).zip(&sorted) {
            ranks[number as usize] = rank;
        }
        ranks
    }

    /// Per number the id itself if all ids are whole numbers from 1 to `max` without leading zeros, otherwise the
    /// rank + 1; and whether it is the latter.
    pub fn ids(&self, max: i64) -> (Vec<i64>, bool) {
        let mut ids = vec![0; self.len()];
        for (id, &number) in &self.numbers {
            let value = id.parse::<i64>().ok().filter(|value| (1..=max).contains(value) && id.starts_with(|c| c > '0'));
            let Some(value) = value else {
                return (self.ranks(|_| true).into_iter().map(|rank| i64::from(rank) + 1).collect(), true);
            };
            ids[number as usize] = value;
        }
        (ids, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interner(ids: &[&str]) -> Interner {
        let mut interner = Interner::default();
        ids.iter().for_each(|id| _ = interner.number(id));
        interner
    }

    #[test]
    fn ranks_sort_as_text_and_skip_what_is_dropped() {
        let interner = interner(&["b", "10", "a", "9", "b"]);
        assert_eq!((interner.len(), interner.texts()), (4, vec!["b", "10", "a", "9"]));
        assert_eq!(interner.ranks(|_| true), [3, 0, 2, 1]);
        let kept = interner.ranks(|number| number != 1);
        assert_eq!((kept[0], kept[2], kept[3]), (2, 1, 0));
    }

    #[test]
    fn ids_stay_only_if_all_are_positive_numbers() {
        assert_eq!(interner(&["7", "3"]).ids(100), (vec![7, 3], false));
        for text in ["0", "-1", "03", "+3", "101"] {
            assert_eq!(interner(&["7", text]).ids(100), (vec![2, 1], true), "{text}");
        }
        assert_eq!(interner(&["7", "x"]).ids(100), (vec![1, 2], true));
    }
}
