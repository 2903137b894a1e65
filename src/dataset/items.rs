//! The list of items that can be retrieved.

use std::io::{BufRead, Write};
use std::path::Path;

use super::catalog;
use crate::{Result, atomic};

/// Reads item ids in file order from a text file with one id per line, a CSV file with a column `item_id`, `movie_id`,
/// `itemId` or `movieId` (recbole's `item_id:token` too), or MovieLens' `movies.dat`.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) if the file cannot be read; [`Error::Dataset`](crate::Error::Dataset) with the line if the column is missing, an id is not a
/// whole number from 1 up, or an id occurs twice.
pub fn read_item_ids(path: &Path) -> Result<Vec<u32>> {
    catalog::unique_ids(&catalog::open(path)?, path)
}

/// Reads the same from memory or a stream; `path` is only named in errors.
///
/// # Errors
/// As [`read_item_ids`].
pub fn parse_item_ids(reader: &mut dyn BufRead, path: &Path) -> Result<Vec<u32>> {
    catalog::unique_ids(&catalog::read(reader, path)?, path)
}

/// Writes one id per line, through a temporary file beside `path`.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) if the file cannot be written.
pub fn write_item_ids(path: &Path, ids: &[u32]) -> Result<()> {
    atomic::write(path, |file| ids.iter().try_for_each(|id| writeln!(file, "{id}")))
}
