//! Which fields of a row hold what.

use std::result::Result as Outcome;

use super::super::number::{ITEM_COLUMNS, column_name, quoted, rating, timestamp};

const USER_COLUMNS: [&str; 2] = ["user_id", "userId"];

/// Separator and positions of the fields.
pub(super) struct Layout {
    /// Empty for any run of blanks.
    separator: &'static str,
    width: usize,
    user: usize,
    item: usize,
    rating: Option<usize>,
    timestamp: Option<usize>,
}

/// One event; ids are still text.
pub(super) struct Row<'a> {
    pub user: &'a str,
    pub item: &'a str,
    pub rating: f32,
    pub timestamp: i64,
}

impl Layout {
    /// user, item, rating, timestamp.
    pub const fn four(separator: &'static str) -> Layout {
        Layout { separator, width: 4, user: 0, item: 1, rating: Some(2), timestamp: Some(3) }
    }

    /// user and item between blanks.
    pub const fn two() -> Layout {
        Layout { separator: "", width: 2, user: 0, item: 1, rating: None, timestamp: None }
    }

    /// Finds the columns by name. Ratings and timestamps may be missing.
    pub fn from_header(header: &str, separator: &'static str) -> Outcome<Layout, String> {
        let names: Vec<&str> = header.split(separator).map(column_name).collect();
        let find = |wanted: &[&str]| names.iter().position(|name| wanted.contains(name));
        let need = |wanted: &[&str]| {
            find(wanted)
                .ok_or_else(|| format!("expected a header with a column `{}`, found {}", wanted[0], quoted(header)))
        };
        let (user, item) = (need(&USER_COLUMNS)?, need(&ITEM_COLUMNS)?);
        Ok(Layout {
            separator,
            width: names.len(),
            user,
            item,
            rating: find(&["rating"]),
            timestamp: find(&["timestamp"]),
        })
    }

    /// The name of an event column that this file lacks.
    pub fn missing(&self) -> Option<&'static str> {
        let rating = self.rating.is_none().then_some("rating");
        rating.or(self.timestamp.is_none().then_some("timestamp"))
    }

    /// Takes a line apart. A missing rating is 1, a missing timestamp 0.
    pub fn row<'a>(&self, line: &'a str) -> Outcome<Row<'a>, String> {
        if self.separator.is_empty() {
            self.pick(line.split_whitespace())
        } else {
            self.pick(line.split(self.separator))
        }
    }

    fn pick<'a>(&self, fields: impl Iterator<Item = &'a str>) -> Outcome<Row<'a>, String> {
        let (mut row, mut width) = (Row { user: "", item: "", rating: 1.0, timestamp: 0 }, 0);
        for (n, field) in fields.enumerate() {
            let field = field.trim().trim_matches('"');
            width = n + 1;
            match n {
                _ if n == self.user => row.user = field,
                _ if n == self.item => row.item = field,
                _ if Some(n) == self.rating => row.rating = rating(field)?,
                _ if Some(n) == self.timestamp => row.timestamp = timestamp(field)?,
                _ => {}
            }
        }
        if width != self.width {
            let separator = if self.separator.is_empty() { "blanks".into() } else { format!("{:?}", self.separator) };
            return Err(format!("expected {} fields between {separator}, found {width}", self.width));
        }
        if row.user.is_empty() || row.item.is_empty() {
            return Err("expected a user and an item, found an empty field".into());
        }
        Ok(row)
    }
}
