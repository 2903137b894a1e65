//! Who has looked up each row of a table: what their gradients are summed by.

/// For each row of a table, the places of those who looked it up, ascending.
pub struct Lists {
    /// (rows + 1): where the lists begin.
    pub starts: Vec<u32>,
    /// All lists.
    pub places: Vec<u32>,
}

impl Lists {
    /// Of `rows` rows, from the row that each place looked up.
    pub fn of(indices: &[u32], rows: usize) -> Lists {
        let mut starts = vec![0; rows + 1];
        indices.iter().for_each(|&row| starts[row as usize + 1] += 1);
        for row in 0..rows {
            starts[row + 1] += starts[row];
        }
        let mut next = starts.clone();
        let mut places = vec![0; indices.len()];
        for (place, &row) in (0..).zip(indices) {
            let at = &mut next[row as usize];
            places[*at as usize] = place;
            *at += 1;
        }
        Lists { starts, places }
    }
}

#[cfg(test)]
mod tests {
    use super::Lists;

    #[test]
    fn lists_are_in_order_and_complete() {
        let lists = Lists::of(&[2, 0, 2, 3, 0], 5);
        assert_eq!(lists.starts, [0, 2, 2, 4, 5, 5]);
        assert_eq!(lists.places, [1, 4, 0, 2, 3]);
    }
}
