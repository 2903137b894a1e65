//! Users and items by the ids that the raw data have for them.

use std::path::Path;

use rails_wgpu::dataset::{Dataset, ItemNames, Sequence};
use rails_wgpu::{Error, Result};

use crate::options::DataArgs;
use crate::progress::note;

/// The user that goes by `id`: that of the raw data where the data set has such ids, else the number.
pub fn user<'a>(dataset: &'a Dataset, id: &str, path: &Path) -> Result<&'a Sequence> {
    let originals = &dataset.original_users;
    let number = match originals.is_empty() {
        true => id.parse::<i64>().ok(),
        false => originals.iter().find(|(_, original)| *original == id).map(|(&number, _)| number),
    };
    let rows: Vec<&Sequence> = dataset.sequences.iter().filter(|sequence| Some(sequence.user_id) == number).collect();
    if rows.len() > 1 {
        note!("warning: {}: {} rows have the user {id}; the first one is taken", path.display(), rows.len());
    }
    rows.first().copied().ok_or_else(|| {
        let kind = if originals.is_empty() { "user ids" } else { "user ids of the raw data" };
        let found = format!("{id}, which is not in {}", path.display());
        Error::argument("user", format!("one of the {} {kind} of the data set", dataset.sequences.len()), found)
    })
}

/// The ids that the raw data have for items, of the list of items, and the titles of the file `titles`.
pub fn items(data: &DataArgs, titles: Option<&Path>) -> Result<ItemNames> {
    ItemNames::read(data.item_list().as_deref(), titles)
}
