//! The list of items that can be retrieved.

use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

use super::catalog::{self, ORIGINAL_COLUMN};
use super::lines::Lines;
use crate::error::Parameter;
use crate::{Error, Result, atomic, input};

/// The list of items that preprocessing has written beside the file of sequences `dataset`, if it is there: `ml-1m.items.txt` for
/// `ml-1m.csv` and `ml-1m.csv.gz`.
pub fn item_list_beside(dataset: &Path) -> Option<PathBuf> {
    let unpacked = dataset.extension().filter(|extension| *extension == "gz").map(|_| dataset.with_extension(""));
    let list = unpacked.as_deref().unwrap_or(dataset).with_extension("items.txt");
    list.is_file().then_some(list)
}

/// Reads item ids in file order from a text file with one id per line, a CSV or TSV file with a column `item_id`, `movie_id`
/// or the like (recbole's `item_id:token` too), or MovieLens' `movies.dat` and `u.item`. It may be compressed with gzip.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) if the file cannot be read; [`Error::Dataset`](crate::Error::Dataset) with the line if the column is missing, there is no item, an id is not a
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

/// Reads string ids in file order, one a line, without blanks around it; blank lines are passed over. The file may be compressed with
/// gzip.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) if the file cannot be read; [`Error::Dataset`](crate::Error::Dataset) with the line if it is not UTF-8
/// text, or there is no id.
pub fn read_string_ids(path: &Path) -> Result<Vec<String>> {
    let mut reader = input::text(path)?;
    let (mut lines, mut ids) = (Lines::new(&mut reader, path), Vec::new());
    while lines.advance()? {
        let id = std::str::from_utf8(lines.bytes()).map_err(|_| lines.error("not UTF-8 text"))?;
        ids.push(id.trim().to_string());
    }
    match ids.is_empty() {
        true => Err(lines.error("no ids: expected one a line")),
        false => Ok(ids),
    }
}

/// Writes one id per line, through a temporary file beside `path`; as a CSV file with the columns `item_id` and
/// `original_id` if there are `originals`, one for each id.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) if the file cannot be written; [`Error::Argument`] if there are some `originals`, but not
/// as many as ids.
pub fn write_item_ids(path: &Path, ids: &[u32], originals: &[String]) -> Result<()> {
    check_originals(ids, originals)?;
    atomic::write(path, |file| write_list(file, ids, originals))
}

/// What [`write_item_ids`] writes.
///
/// # Errors
/// [`Error::Argument`] if there are some `originals`, but not as many as ids.
pub fn item_list_text(ids: &[u32], originals: &[String]) -> Result<Vec<u8>> {
    check_originals(ids, originals)?;
    let mut text = Vec::new();
    write_list(&mut text, ids, originals).map_err(Error::io("write", Path::new("a list of items")))?;
    Ok(text)
}

fn check_originals(ids: &[u32], originals: &[String]) -> Result<()> {
    if originals.is_empty() || originals.len() == ids.len() {
        return Ok(());
    }
    let expected = format!("{}, one per item, or none", ids.len());
    Err(Error::argument(Parameter::OriginalIds, expected, originals.len()))
}

fn write_list(file: &mut impl Write, ids: &[u32], originals: &[String]) -> io::Result<()> {
    if originals.is_empty() {
        return ids.iter().try_for_each(|id| writeln!(file, "{id}"));
    }
    let mut writer = csv::Writer::from_writer(file);
    writer.write_record(["item_id", ORIGINAL_COLUMN])?;
    ids.iter().zip(originals).try_for_each(|(id, original)| writer.write_record([&id.to_string(), original]))?;
    writer.flush()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_beside_its_data_set_whether_that_is_compressed_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("ml-1m.items.txt"), "1\n").unwrap();
        for name in ["ml-1m.csv", "ml-1m.csv.gz"] {
            assert_eq!(item_list_beside(&at(name)), Some(at("ml-1m.items.txt")), "{name}");
        }
        assert_eq!(item_list_beside(&at("other.csv")), None);
    }
}
