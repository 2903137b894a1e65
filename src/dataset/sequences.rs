//! The reference's `sasrec_format.csv`: one user per line, the events as quoted comma lists.
//!
//! ```text
//! index,user_id,sequence_item_ids,sequence_ratings,sequence_timestamps
//! 0,37,"138,133,134","4,5,3.5","1382401151,1382401588,1382577980"
//! ```

use std::collections::HashMap;
use std::io::{self, BufRead};
use std::path::Path;

use super::lines::{LONGEST_LINE, Lines, Tally, csv_fields};
use super::number::{are_milliseconds, column_name, item_id, quoted, rating, timestamp, user_id};
use crate::error::Parameter;
use crate::{Error, Result, atomic, input};

/// What the raw data call a user that was numbered anew.
const ORIGINAL_COLUMN: &str = "original_user_id";

const COLUMNS: [&str; 4] = ["user_id", "sequence_item_ids", "sequence_ratings", "sequence_timestamps"];

/// The history of one user, oldest event first; the three lists have one entry per event.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sequence {
    /// The user, at least 0.
    pub user_id: i64,
    /// What was interacted with, each at least 1.
    pub item_ids: Vec<u32>,
    /// How it was rated; the models of this crate do not look at it.
    pub ratings: Vec<f32>,
    /// When, in seconds; all 0 where the source has no times.
    pub timestamps: Vec<i64>,
}

impl Sequence {
    /// Number of events.
    pub fn len(&self) -> usize {
        self.item_ids.len()
    }

    /// Whether there is no event.
    pub fn is_empty(&self) -> bool {
        self.item_ids.is_empty()
    }
}

/// Histories of users, in file order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dataset {
    /// One per line of the file.
    pub sequences: Vec<Sequence>,
    /// By user id what the raw data call the user, where users had to be numbered anew; else empty.
    pub original_users: HashMap<i64, String>,
}

/// How [`Dataset::read`] reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadOptions {
    /// Stop after this many users, the first ones of the file.
    pub limit: Option<usize>,
    /// Count malformed lines and go on, instead of stopping at the first.
    pub skip_bad_lines: bool,
    /// Added to every item id: 1 for the reference's own `amzn-books` files, otherwise 0.
    pub shift_id_by: u32,
}

impl ReadOptions {
    /// Sets [`ReadOptions::limit`].
    #[must_use]
    pub fn with_limit(self, limit: impl Into<Option<usize>>) -> ReadOptions {
        ReadOptions { limit: limit.into(), ..self }
    }

    /// Sets [`ReadOptions::skip_bad_lines`].
    #[must_use]
    pub fn with_skip_bad_lines(self, skip_bad_lines: bool) -> ReadOptions {
        ReadOptions { skip_bad_lines, ..self }
    }

    /// Sets [`ReadOptions::shift_id_by`].
    #[must_use]
    pub fn with_shift_id_by(self, shift_id_by: u32) -> ReadOptions {
        ReadOptions { shift_id_by, ..self }
    }
}

/// What [`Dataset::read`] met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadReport {
    /// Events read.
    pub events: u64,
    /// Malformed lines left out.
    pub bad_lines: u64,
    /// Why the first of them was left out, with its line.
    pub first_bad_line: Option<String>,
    /// Users whose events are not in the order of their timestamps.
    pub unsorted_users: usize,
    /// Users with timestamps that must be milliseconds: models expect seconds.
    pub millisecond_users: usize,
}

impl ReadReport {
    /// What is probably wrong with the data, in a sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.unsorted_users > 0 {
            let n = self.unsorted_users;
            warnings.push(format!("users with events out of time order: {n}; models expect the oldest first"));
        }
        if self.millisecond_users > 0 {
            let n = self.millisecond_users;
            warnings.push(format!(
                "users with timestamps beyond the year 5000: {n}; models expect seconds, not milliseconds"
            ));
        }
        warnings
    }

    fn count(&mut self, sequence: &Sequence) {
        self.events += sequence.len() as u64;
        self.unsorted_users += usize::from(!sequence.timestamps.is_sorted());
        self.millisecond_users += usize::from(are_milliseconds(&sequence.timestamps));
    }
}

impl Dataset {
    /// Reads a file, which may be compressed with gzip, line by line. Columns are found by name and the others are ignored.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; [`Error::Dataset`] with the line if a column is missing, the file has
    /// no users, or a line is malformed: a number that cannot be parsed, an item id below 1, a negative user id, no
    /// events, lists of different lengths, a missing quote, text that is not UTF-8.
    pub fn read(path: &Path, options: ReadOptions) -> Result<(Dataset, ReadReport)> {
        Dataset::parse(&mut input::text(path)?, path, options)
    }

    /// Reads the same from memory or a stream; `path` is only named in errors.
    ///
    /// # Errors
    /// As [`Dataset::read`].
    pub fn parse(reader: &mut dyn BufRead, path: &Path, options: ReadOptions) -> Result<(Dataset, ReadReport)> {
        if options.limit == Some(0) {
            return Err(Error::argument(Parameter::Limit, "at least 1 user", 0));
        }
        let mut lines = Lines::new(reader, path);
        let header = lines.header(&format!("a header with the columns {}", COLUMNS.join(", ")))?;
        let columns = Columns::find(&header).map_err(|what| lines.error(what))?;

        let (mut sequences, mut original_users) = (Vec::new(), HashMap::new());
        let (mut tally, mut report) = (Tally::default(), ReadReport::default());
        while options.limit.is_none_or(|limit| sequences.len() < limit) {
            let more = lines.row(options.skip_bad_lines, &mut tally, |line| {
                let (sequence, original) = columns.parse(line, options.shift_id_by)?;
                report.count(&sequence);
                original_users.extend(original.map(|original| (sequence.user_id, original)));
                sequences.push(sequence);
                Ok(())
            })?;
            if !more {
                break;
            }
        }
        if sequences.is_empty() {
            let bad = tally.first_bad.map(|what| format!("; first bad line: {what}")).unwrap_or_default();
            let what = format!("no users: expected a line per user after the header{bad}");
            return Err(Error::Dataset { path: path.to_path_buf(), line: 0, what });
        }
        (report.bad_lines, report.first_bad_line) = (tally.bad, tally.first_bad);
        Ok((Dataset { sequences, original_users }, report))
    }

    /// Writes the file through a temporary one beside it, so that an existing file survives a failure. Ratings take
    /// their shortest form (`4`, `3.5`); the `index` column counts lines from 0.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written; [`Error::Argument`] for what [`Dataset::read`] would refuse.
    pub fn write(&self, path: &Path) -> Result<()> {
        for sequence in &self.sequences {
            check(sequence)?;
        }
        if self.sequences.is_empty() {
            return Err(Error::argument(Parameter::Dataset, "at least one user", "none"));
        }
        atomic::write(path, |file| {
            let mut writer = csv::Writer::from_writer(file);
            let with_originals = !self.original_users.is_empty();
            writer.write_field("index")?;
            writer.write_record(COLUMNS.iter().chain(with_originals.then_some(&ORIGINAL_COLUMN)))?;
            for (index, sequence) in self.sequences.iter().enumerate() {
                let mut fields = vec![
                    index.to_string(),
                    sequence.user_id.to_string(),
                    comma_list(&sequence.item_ids),
                    comma_list(&sequence.ratings),
                    comma_list(&sequence.timestamps),
                ];
                if with_originals {
                    fields.push(self.original_users.get(&sequence.user_id).cloned().unwrap_or_default());
                }
                check_length(sequence, fields.iter().map(String::len).sum(), LONGEST_LINE)?;
                writer.write_record(fields)?;
            }
            writer.flush()
        })
    }
}

/// A line that is too long to be read again is not written.
fn check_length(sequence: &Sequence, bytes: usize, longest: usize) -> io::Result<()> {
    /// Commas, quotes and the line end.
    const BETWEEN: usize = 32;
    if bytes + BETWEEN <= longest {
        return Ok(());
    }
    let (user, n) = (sequence.user_id, sequence.len());
    let what =
        format!("the {n} events of user {user} make a line of {bytes} bytes, more than the {longest} that are read");
    Err(io::Error::other(format!("{what}; leave that user out, or the oldest events")))
}

/// Where the columns are, and how many there are in all.
struct Columns {
    at: [usize; 4],
    original: Option<usize>,
    width: usize,
}

impl Columns {
    fn find(header: &str) -> Result<Columns, String> {
        let fields = csv_fields(header)?;
        let mut at = [0; 4];
        for (at, column) in at.iter_mut().zip(COLUMNS) {
            let found = fields.iter().position(|name| column_name(name) == column);
            *at = found.ok_or_else(|| {
                let expected = COLUMNS.join(", ");
                format!(
                    "no column `{column}`: expected {expected} between commas, found {}; `rails-bench preprocess` makes \
                     sequences of a file with an event per line",
                    quoted(header)
                )
            })?;
        }
        let original = fields.iter().position(|name| column_name(name) == ORIGINAL_COLUMN);
        Ok(Columns { at, original, width: fields.len() })
    }

    /// The sequence of a line, and what the raw data call its user.
    fn parse(&self, line: &str, shift: u32) -> Result<(Sequence, Option<String>), String> {
        let fields = csv_fields(line)?;
        if fields.len() != self.width {
            return Err(format!("expected {} fields as in the header, found {}", self.width, fields.len()));
        }
        let [user, items, ratings, timestamps] = self.at.map(|column| fields[column].trim());
        let sequence = Sequence {
            user_id: user_id(user).map_err(|what| format!("`{}`: {what}", COLUMNS[0]))?,
            item_ids: parse_list(COLUMNS[1], items, |text| item_id(text, shift))?,
            ratings: parse_list(COLUMNS[2], ratings, rating)?,
            timestamps: parse_list(COLUMNS[3], timestamps, timestamp)?,
        };
        same_length(&sequence)?;
        Ok((sequence, self.original.map(|column| fields[column].clone().into_owned())))
    }
}

fn parse_list<T>(column: &str, text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    if text.is_empty() {
        return Err(format!("`{column}`: expected at least one event, found none"));
    }
    let entries = text.split(',').enumerate();
    entries
        .map(|(n, entry)| parse(entry.trim()).map_err(|what| format!("`{column}`, entry {}: {what}", n + 1)))
        .collect()
}

fn comma_list<T: ToString>(values: &[T]) -> String {
    values.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

fn same_length(sequence: &Sequence) -> Result<(), String> {
    let (items, ratings, timestamps) = (sequence.len(), sequence.ratings.len(), sequence.timestamps.len());
    if items == ratings && items == timestamps {
        return Ok(());
    }
    Err(format!(
        "expected three lists of one length, found {items} item ids, {ratings} ratings and {timestamps} timestamps"
    ))
}

fn check(sequence: &Sequence) -> Result<()> {
    let wrong = |found: String| Err(Error::argument(Parameter::Dataset, "what Dataset::read accepts", found));
    let user = sequence.user_id;
    match same_length(sequence) {
        Err(what) => wrong(format!("user {user}: {what}")),
        Ok(()) if user < 0 => wrong(format!("user id {user}")),
        Ok(()) if sequence.is_empty() => wrong(format!("user {user} without events")),
        Ok(()) if sequence.item_ids.contains(&0) => wrong(format!("user {user} with item id 0")),
        Ok(()) if sequence.ratings.iter().any(|r| !r.is_finite()) => {
            wrong(format!("user {user} with a rating not finite"))
        }
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_written_if_it_can_be_read() {
        let sequence = Sequence { user_id: 7, item_ids: vec![1; 3], ..Sequence::default() };
        assert!(check_length(&sequence, 68, 100).is_ok());
        let error = check_length(&sequence, 69, 100).err().map(|error| error.to_string());
        let expected = "the 3 events of user 7 make a line of 69 bytes, more than the 100 that are read; leave that user out, \
                        or the oldest events";
        assert_eq!(error.as_deref(), Some(expected));
    }
}
