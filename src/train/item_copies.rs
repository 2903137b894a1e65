//! Copies of the items of a batch, where dropout is to draw more than one mask for an item.

/// Which copy of its item each positive and each negative is compared with. Those of an item take turns, positives first.
#[derive(Debug, PartialEq)]
pub struct ItemCopies {
    /// (C): the item, of the M items of the batch, that each copy is of.
    pub items: Vec<u32>,
    /// (P): the copy that each position's positive is.
    pub positives: Vec<u32>,
    /// (P, R): the copies that its negatives are. A negative that is the positive is the same copy.
    pub negatives: Vec<u32>,
}

impl ItemCopies {
    /// Up to `most` copies of each of `n_items` items, no more than it is drawn; `positives` (P) and `negatives` (P, R) say which
    /// of the items they are.
    pub fn new(positives: &[u32], negatives: &[u32], n_items: usize, most: usize) -> ItemCopies {
        let n_negatives = negatives.len() / positives.len();
        let positive_of = |i: usize| positives[i / n_negatives];
        let others = || negatives.iter().enumerate().filter(|&(i, &item)| item != positive_of(i));

        let mut n_copies = vec![0; n_items];
        positives.iter().chain(others().map(|(_, item)| item)).for_each(|&item| n_copies[item as usize] += 1);
        n_copies.iter_mut().for_each(|n| *n = most.min(*n));
        let firsts = n_copies.iter().scan(0, |end, n| {
            *end += n;
            Some(*end - n)
        });
        let firsts: Vec<usize> = firsts.collect();

        let mut turns = vec![0; n_items];
        let mut next = |item: u32| {
            let item = item as usize;
            let copy = firsts[item] + turns[item] % n_copies[item];
            turns[item] += 1;
            copy as u32
        };
        let of_positives: Vec<u32> = positives.iter().map(|&item| next(item)).collect();
        let of_negatives = negatives.iter().enumerate().map(|(i, &item)| match item == positive_of(i) {
            true => of_positives[i / n_negatives],
            false => next(item),
        });
        let of_negatives = of_negatives.collect();
        let items = (0u32..).zip(n_copies).flat_map(|(item, n)| std::iter::repeat_n(item, n));
        ItemCopies { items: items.collect(), positives: of_positives, negatives: of_negatives }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_of_an_item_take_turns() {
        // Item 3 is drawn four times; the second position's first negative is its positive.
        let negatives = [0, 3, 3, 2, 3, 3];
        let copies = ItemCopies::new(&[1, 2], &negatives, 5, 3);
        assert_eq!(copies.items, [0, 1, 2, 3, 3, 3]);
        assert_eq!(copies.positives, [1, 2]);
        assert_eq!(copies.negatives, [0, 3, 4, 2, 5, 3]);
        // One copy of each: the items themselves.
        let single = ItemCopies::new(&[1, 2], &negatives, 4, 1);
        assert_eq!((single.positives, single.negatives.as_slice()), (vec![1, 2], &negatives[..]));
    }
}
