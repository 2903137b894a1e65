//! Lists of items with their titles, in any of the forms they come in: an id per line, MovieLens' `movies.dat`
//! (`id::title::genres`), its `u.item` (`id|title|...`), a CSV or TSV file with a header, or a recbole `.item` file.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::BufRead;
use std::path::Path;
use std::result::Result as Outcome;

use super::lines::{Lines, OPEN_QUOTE, csv_fields};
use super::number::{ITEM_COLUMNS, decode, find_column, item_column, item_id, quoted};
use crate::{Error, Result, input};

const TITLE_COLUMNS: &[&str] = &["title", "movie_title", "item_title", "name", "item_name"];

/// What the raw data call an item that was numbered anew.
pub(super) const ORIGINAL_COLUMN: &str = "original_id";

/// Most lines that a quoted title may have: a lost quote must not swallow the rest of the file.
const TITLE_LINES: usize = 32;

/// One line: the id as text, because recbole ids need not be numbers.
pub(super) struct Entry {
    pub line: u64,
    pub id: String,
    pub title: Option<String>,
    /// What the raw data call it.
    pub original: Option<String>,
}

/// All entries of the file `path`.
pub(super) fn open(path: &Path) -> Result<Vec<Entry>> {
    read(&mut input::text(path)?, path)
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
        let (first, mut text) = (lines.number(), decode(lines.bytes()));
        let mut row = table.row(first, &text);
        for _ in 1..TITLE_LINES {
            if !matches!(&row, Err(what) if what == OPEN_QUOTE) || !lines.advance()? {
                break;
            }
            text = format!("{text}\n{}", decode(lines.bytes()));
            row = table.row(first, &text);
        }
        let error = |what| Error::Dataset { path: path.to_path_buf(), line: first, what };
        entries.push(row.map_err(error)?);
        more = lines.advance()?;
    }
    if entries.is_empty() {
        return Err(lines.error("no items: expected one per line after the header"));
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
    original: Option<usize>,
}

impl Table {
    /// And whether the first line is a header.
    fn new(first: &str) -> Outcome<(Table, bool), String> {
        let known = ["::", "\t", "|", ","].into_iter().find(|&separator| first.contains(separator));
        let separator = known.unwrap_or(",");
        let names: Vec<&str> = first.split(separator).collect();
        let width = names.len();
        if let Some(id) = item_column(&names) {
            let (title, original) = (find_column(&names, TITLE_COLUMNS), find_column(&names, &[ORIGINAL_COLUMN]));
            return Ok((Table { separator, width, id, title, original }, true));
        }
        let without_header = |title| Ok((Table { separator, width, id: 0, title, original: None }, false));
        match separator {
            "::" | "|" => without_header(Some(1)),
            _ if width == 1 => without_header(None),
            _ => Err(format!(
                "expected an id per line, or a header with one of {} between commas or tabs, found {}",
                ITEM_COLUMNS.join(", "),
                quoted(first)
            )),
        }
    }

    fn row(&self, number: u64, line: &str) -> Outcome<Entry, String> {
        // Only CSV has quotes: in a recbole title a quote is a quote.
        let fields =
            if self.separator == "," { csv_fields(line)? } else { line.split(self.separator).map(Cow::from).collect() };
        if fields.len() != self.width {
            return Err(format!("expected {} fields as in the first line, found {}", self.width, fields.len()));
        }
        // A line end inside of a title becomes a blank.
        let field = |column: usize| fields[column].split_whitespace().collect::<Vec<_>>().join(" ");
        match fields[self.id].trim() {
            "" => Err("expected an item id, found nothing".into()),
            id => Ok(Entry {
                line: number,
                id: id.to_owned(),
                title: self.title.map(field),
                original: self.original.map(|column| fields[column].clone().into_owned()),
            }),
        }
    }
}
