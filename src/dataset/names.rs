//! What people call the items: the ids of the raw data, and titles.

use std::collections::HashMap;
use std::path::Path;

use super::catalog;
use crate::{Error, Result};

/// Names of items by their ids.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ItemNames {
    originals: HashMap<u32, String>,
    titles: HashMap<u32, String>,
}

impl ItemNames {
    /// Reads the ids of the raw data from `list`, an item list with a column `original_id` as `preprocess` writes it where it
    /// had to number the items itself, and titles from `titles`: MovieLens' `movies.dat`, `movies.csv` or `u.item`, any CSV
    /// or TSV file with an id and a title column, or a recbole `.item` file. Items of `titles` go by the ids of the raw
    /// data if there are some; those that are not in the list are passed over. Text that is not UTF-8 is taken as
    /// ISO-8859-1; either file may be compressed with gzip.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read; [`Error::Dataset`] with the line if there is no id or title column, an id is
    /// not a whole number from 1 up, or an id occurs twice.
    pub fn read(list: Option<&Path>, titles: Option<&Path>) -> Result<ItemNames> {
        let mut names = ItemNames::default();
        if let Some(path) = list {
            let entries = catalog::open(path)?;
            let ids = catalog::unique_ids(&entries, path)?;
            let originals = ids.into_iter().zip(entries).filter_map(|(id, entry)| Some((id, entry.original?)));
            names.originals = originals.collect();
        }
        if let Some(path) = titles {
            names.titles = names.read_titles(path)?;
        }
        Ok(names)
    }

    fn read_titles(&self, path: &Path) -> Result<HashMap<u32, String>> {
        let error = |line, what: String| Error::Dataset { path: path.to_path_buf(), line, what };
        let entries = catalog::open(path)?;
        if entries.iter().all(|entry| entry.title.is_none()) {
            let what = "no titles: expected `id::title::genres` or a header with a column `title`";
            return Err(error(0, what.to_string()));
        }
        let ids: Vec<Option<u32>> = if self.originals.is_empty() {
            catalog::unique_ids(&entries, path)?.into_iter().map(Some).collect()
        } else {
            let numbers: HashMap<&str, u32> = self.originals.iter().map(|(&id, name)| (name.as_str(), id)).collect();
            entries.iter().map(|entry| numbers.get(entry.id.as_str()).copied()).collect()
        };
        let mut titles = HashMap::with_capacity(entries.len());
        for (id, entry) in ids.into_iter().zip(entries) {
            let Some(id) = id else { continue };
            let title = entry.title.ok_or_else(|| error(entry.line, "expected a title, found nothing".to_string()))?;
            if titles.insert(id, title).is_some() {
                return Err(error(entry.line, format!("item `{}` occurs twice", entry.id)));
            }
        }
        Ok(titles)
    }

    /// What the raw data call item `id`, or its number.
    pub fn id(&self, id: u64) -> String {
        find(&self.originals, id).map_or_else(|| id.to_string(), str::to_string)
    }

    /// The title of item `id`.
    pub fn title(&self, id: u64) -> Option<&str> {
        find(&self.titles, id)
    }
}

fn find(names: &HashMap<u32, String>, id: u64) -> Option<&str> {
    names.get(&u32::try_from(id).ok()?).map(String::as_str)
}
