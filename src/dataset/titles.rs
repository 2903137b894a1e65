//! Names of items, for people to read.

use std::collections::BTreeMap;
use std::path::Path;

use super::catalog;
use crate::{Error, Result};

/// Reads titles by item id from MovieLens' `movies.dat` or `movies.csv`, any CSV file with an id and a title column, or
/// a recbole `.item` file. Text that is not UTF-8 is taken as ISO-8859-1.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::Dataset`] with the line if there is no id or title column, an id
/// is not a whole number from 1 up, or an id occurs twice.
pub fn read_titles(path: &Path) -> Result<BTreeMap<u32, String>> {
    let error = |line, what: &str| Error::Dataset { path: path.to_path_buf(), line, what: what.to_owned() };
    let entries = catalog::open(path)?;
    if entries.iter().all(|entry| entry.title.is_none()) {
        return Err(error(0, "no titles: expected `id::title::genres` or a header with a column `title`"));
    }
    let ids = catalog::unique_ids(&entries, path)?;
    let titled = |(id, entry): (u32, catalog::Entry)| {
        entry.title.map(|title| (id, title)).ok_or_else(|| error(entry.line, "expected a title, found nothing"))
    };
    ids.into_iter().zip(entries).map(titled).collect()
}
