//! Lists of items with their titles, in any of the forms they come in: an id per line, MovieLens' `movies.dat`
//! (`id::title::genres`), a CSV file with a header, or a recbole `.item` file.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::result::Result as Outcome;

use super::lines::{Lines, csv_fields};
use super::number::{ITEM_COLUMNS, column_name, decode, item_id, quoted};
use crate::{Error, Result};

const TITLE_COLUMNS: [&str; 5] = ["title", "movie_title", "item_title", "name", "item_name"];

/// One line: the id as text, because recbole ids need not be numbers.
pub(super) struct Entry {
    pub line: u64,
    pub id: String,
    pub title: Option<String>,
}

/// All entries of the file `path`.
pub(super) fn open(path: &Path) -> Result<Vec<Entry>> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    read(&mut BufReader::new(file), path)
}

/// All entries, in file order.
pub(super) fn read(reader: &mut dyn BufRead, path: &Path) -> Result<Vec<Entry>> {
    let mut lines = Lines::new(reader, path);
    if !lines.advance()? {
        return Err(lines.error("empty file: expected a list of items"));
    }
    let (table, header) = Table::new(&decode(lines.bytes())).map_err(|what| lines.error(what))?;
    let mut entries = Vec::new();
    let mut more = !header || lines.advance()?;
    while more {
        let (id, title) = table.row(&decode(lines.bytes())).map_err(|what| lines.error(what))?;
        entries.push(Entry { line: lines.number(), id, title });
        more = lines.advance()?;
    }
    Ok(entries)
}

/// The ids as numbers; each must be at least 1 and occur once.
pub(super) fn unique_ids(entries: &[Entry], path: &Path) -> Result<Vec<u32>> {
    let error = |line, what: String| Error::Dataset { path: path.to_path_buf(), line, what };
    let mut first_seen = HashMap::with_capacity(entries.len());
    let unique = |entry: &Entry| {
        let id = item_id(&entry.id, 0).map_err(|what| error(entry.line, what))?;
        match first_seen.insert(id, entry.line) {
            Some(before) => Err(error(entry.line, format!("item {id} is already on line {before}"))),
            None => Ok(id),
        }
    };
    entries.iter().map(unique).collect()
}

/// How to take a line apart, learnt from the first one.
struct Table {
    separator: &'static str,
    width: usize,
    id: usize,
    title: Option<usize>,
}

impl Table {
    /// And whether the first line is a header.
    fn new(first: &str) -> Outcome<(Table, bool), String> {
        let known = ["::", "\t", ","].into_iter().find(|&separator| first.contains(separator));
        let separator = known.unwrap_or(",");
        let names: Vec<&str> = first.split(separator).map(column_name).collect();
        let find = |wanted: &[&str]| names.iter().position(|name| wanted.contains(name));
        let (width, id, title) = (names.len(), find(&ITEM_COLUMNS), find(&TITLE_COLUMNS));
        match (separator, id) {
            (_, Some(id)) => Ok((Table { separator, width, id, title }, true)),
            ("::", None) => Ok((Table { separator, width, id: 0, title: Some(1) }, false)),
            _ if width == 1 => Ok((Table { separator, width, id: 0, title: None }, false)),
            _ => Err(format!("expected a header with one of {}, found {}", ITEM_COLUMNS.join(", "), quoted(first))),
        }
    }

    fn row(&self, line: &str) -> Outcome<(String, Option<String>), String> {
        // Only CSV has quotes: in a recbole title a quote is a quote.
        let fields =
            if self.separator == "," { csv_fields(line)? } else { line.split(self.separator).map(Cow::from).collect() };
        if fields.len() != self.width {
            return Err(format!("expected {} fields as in the first line, found {}", self.width, fields.len()));
        }
        match fields[self.id].trim() {
            "" => Err("expected an item id, found nothing".into()),
            id => Ok((id.to_owned(), self.title.map(|title| fields[title].trim().to_owned()))),
        }
    }
}
