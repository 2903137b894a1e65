//! How an index calls the rows of its model's item table.

use super::id_of_string;

/// The ids of rows of a model's item table: the rows themselves, or the names that the model has for them
/// ([`ModelFile::item_names`](crate::ModelFile::item_names)), where ids of the index are strings.
#[derive(Clone, Debug, Default)]
pub struct RowIds {
    /// Numbers of the names of the rows 1, 2, ..., where these are the ids.
    named: Option<Vec<u64>>,
}

impl RowIds {
    /// Those of rows with `names`, from row 1 on; an empty one stands for none.
    pub(super) fn of_names(names: &[String]) -> RowIds {
        let number = |(at, name): (usize, &String)| match name.is_empty() {
            true => nameless(at as u64 + 1),
            false => id_of_string(name),
        };
        RowIds { named: Some(names.iter().enumerate().map(number).collect()) }
    }

    /// The id of `row`. One without a name has an id that no item has.
    pub fn id(&self, row: u32) -> u64 {
        match &self.named {
            None => row.into(),
            Some(named) => {
                let at = (row as usize).checked_sub(1);
                at.and_then(|at| named.get(at)).copied().unwrap_or_else(|| nameless(row.into()))
            }
        }
    }

    /// The row with this id, if there is one.
    pub fn row(&self, id: u64) -> Option<u32> {
        match &self.named {
            None => u32::try_from(id).ok(),
            Some(named) => named.iter().position(|&number| number == id).and_then(|at| u32::try_from(at + 1).ok()),
        }
    }
}

/// Numbers of strings are below 2^63.
fn nameless(row: u64) -> u64 {
    1 << 63 | row
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn rows_have_the_ids_of_their_names_or_are_ids() {
        let rows = RowIds::default();
        assert_eq!((rows.id(7), rows.row(7), rows.row(1 << 40)), (7, Some(7), None));
        let named = RowIds::of_names(&["a", "", "c"].map(str::to_string));
        assert_eq!((named.id(1), named.id(3)), (id_of_string("a"), id_of_string("c")));
        assert_eq!((named.row(named.id(3)), named.row(3)), (Some(3), None));
        assert!([0, 2, 4, u32::MAX].into_iter().all(|row| named.id(row) > u64::MAX / 2));
    }
}
