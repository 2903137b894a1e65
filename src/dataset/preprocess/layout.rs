//! Which fields of a row hold what.

use std::borrow::Cow;
use std::result::Result as Outcome;

use super::super::lines::quoted_fields;
use super::super::number::{ITEM_COLUMNS, USER_COLUMNS, find_column, quoted, rating, timestamp};

const RATING_COLUMNS: &[&str] = &["rating", "score"];
const TIMESTAMP_COLUMNS: &[&str] = &["timestamp", "time", "ts"];

/// What may stand between the fields of one row.
#[derive(Clone, Copy, PartialEq)]
enum Separator {
    /// Any run of blanks.
    Blanks,
    /// This text; there are no quotes.
    Text(&'static str),
    /// This character; fields may be in quotes.
    Quoted(char),
}

/// Separator and positions of the fields.
#[derive(Clone)]
pub(super) struct Layout {
    separator: Separator,
    width: usize,
    user: usize,
    item: usize,
    rating: Option<usize>,
    timestamp: Option<usize>,
}

/// One event; ids are still text.
pub(super) struct Row<'a> {
    pub user: Cow<'a, str>,
    pub item: Cow<'a, str>,
    pub rating: f32,
    pub timestamp: i64,
}

impl Layout {
    /// user, item, rating, timestamp.
    pub const fn four(separator: &'static str) -> Layout {
        let separator = Separator::Text(separator);
        Layout { separator, width: 4, user: 0, item: 1, rating: Some(2), timestamp: Some(3) }
    }

    /// user and item between blanks.
    pub const fn two() -> Layout {
        Layout { separator: Separator::Blanks, width: 2, user: 0, item: 1, rating: None, timestamp: None }
    }

    /// Finds the columns by name between tabs, as recbole writes them. Ratings and timestamps may be missing.
    pub fn of_recbole(header: &str) -> Outcome<Layout, String> {
        Layout::of_names(&header.split('\t').collect::<Vec<_>>(), Separator::Text("\t")).map_err(|column| {
            let between = "tabs; files with other separators are read as the format `csv`";
            missing(column, between, header)
        })
    }

    /// Finds the columns by name between commas, tabs, semicolons or bars. Ratings and timestamps may be missing.
    pub fn of_csv(header: &str) -> Outcome<Layout, String> {
        const SEPARATORS: [char; 4] = [',', '\t', ';', '|'];
        let separator = SEPARATORS.into_iter().max_by_key(|&separator| {
            // The first of equals.
            (header.matches(separator).count(), std::cmp::Reverse(SEPARATORS.iter().position(|&c| c == separator)))
        });
        let separator = separator.unwrap_or(',');
        Layout::of_names(&quoted_fields(header, separator)?, Separator::Quoted(separator))
            .map_err(|column| missing(column, "commas, tabs, semicolons or bars", header))
    }

    /// `Err` is the column that is missing.
    fn of_names<T: AsRef<str>>(names: &[T], separator: Separator) -> Outcome<Layout, &'static [&'static str]> {
        Ok(Layout {
            separator,
            width: names.len(),
            user: find_column(names, USER_COLUMNS).ok_or(USER_COLUMNS)?,
            item: find_column(names, ITEM_COLUMNS).ok_or(ITEM_COLUMNS)?,
            rating: find_column(names, RATING_COLUMNS),
            timestamp: find_column(names, TIMESTAMP_COLUMNS),
        })
    }

    /// The names of an event column that this file lacks.
    pub fn missing(&self) -> Option<&'static [&'static str]> {
        let rating = self.rating.is_none().then_some(RATING_COLUMNS);
        rating.or(self.timestamp.is_none().then_some(TIMESTAMP_COLUMNS))
    }

    /// Whether there is a column of timestamps.
    pub fn has_timestamps(&self) -> bool {
        self.timestamp.is_some()
    }

    /// Takes a line apart. A missing rating is 1, a missing timestamp 0.
    pub fn row<'a>(&self, line: &'a str) -> Outcome<Row<'a>, String> {
        match self.separator {
            Separator::Blanks => self.pick(line.split_whitespace().map(Cow::Borrowed)),
            Separator::Text(separator) => self.pick(line.split(separator).map(unquoted)),
            Separator::Quoted(separator) if !line.contains('"') => self.pick(line.split(separator).map(unquoted)),
            Separator::Quoted(separator) => self.pick(quoted_fields(line, separator)?.into_iter()),
        }
    }

    fn pick<'a>(&self, fields: impl Iterator<Item = Cow<'a, str>>) -> Outcome<Row<'a>, String> {
        let (mut row, mut width) = (Row { user: "".into(), item: "".into(), rating: 1.0, timestamp: 0 }, 0);
        for (n, field) in fields.enumerate() {
            width = n + 1;
            match n {
                _ if n == self.user => row.user = field,
                _ if n == self.item => row.item = field,
                _ if Some(n) == self.rating => row.rating = rating(field.trim())?,
                _ if Some(n) == self.timestamp => row.timestamp = timestamp(field.trim())?,
                _ => {}
            }
        }
        if width != self.width {
            let separator = match self.separator {
                Separator::Blanks => "blanks".to_string(),
                Separator::Text(separator) => format!("{separator:?}"),
                Separator::Quoted(separator) => format!("{:?}", separator.to_string()),
            };
            return Err(format!("expected {} fields between {separator}, found {width}", self.width));
        }
        if row.user.trim().is_empty() || row.item.trim().is_empty() {
            return Err("expected a user and an item, found an empty field".into());
        }
        Ok(row)
    }
}

/// A field of a file whose quotes hold no separators.
fn unquoted(field: &str) -> Cow<'_, str> {
    field.trim().trim_matches('"').into()
}

/// Says that none of the columns `names` is in `header`.
pub(super) fn missing(names: &[&str], between: &str, header: &str) -> String {
    let (last, others) = names.split_last().unwrap_or((&"", &[]));
    let names = if others.is_empty() { last.to_string() } else { format!("{} or {last}", others.join(", ")) };
    format!("expected a header with a column {names} between {between}; found {}", quoted(header))
}
