//! The items that a batch needs, each once.

use crate::threads;

/// Ids that a thread looks up at a time.
const PIECE: usize = 1 << 14;

/// Distinct items of a batch, in ascending order of their ids, and where each of its lists has them.
pub struct BatchItems {
    /// (M): ids.
    pub ids: Vec<u32>,
    /// (item rows): place of an id among them.
    places: Vec<u32>,
}

impl BatchItems {
    /// Those of some lists of ids below `n_item_rows`.
    pub fn of(lists: &[&[u32]], n_item_rows: usize) -> BatchItems {
        const ABSENT: u32 = u32::MAX;
        let mut places = vec![ABSENT; n_item_rows];
        for &id in lists.iter().copied().flatten() {
            places[id as usize] = 0;
        }
        let mut ids = Vec::new();
        for (id, place) in places.iter_mut().enumerate().filter(|(_, place)| **place != ABSENT) {
            *place = ids.len() as u32;
            ids.push(id as u32);
        }
        BatchItems { ids, places }
    }

    /// Number M of items.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// The places of ids that are among them.
    pub fn places(&self, ids: &[u32]) -> Vec<u32> {
        let mut places = ids.to_vec();
        threads::for_each(places.chunks_mut(PIECE), |places| {
            places.iter_mut().for_each(|place| *place = self.places[*place as usize]);
        });
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_distinct_ascending_and_found() {
        let items = BatchItems::of(&[&[7, 3], &[3, 9, 1, 7]], 10);
        assert_eq!((items.ids.as_slice(), items.len()), (&[1, 3, 7, 9][..], 4));
        assert_eq!(items.places(&[9, 3, 3, 1]), [3, 1, 1, 0]);
    }
}
