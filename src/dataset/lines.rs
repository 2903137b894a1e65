//! Lines of a data file, numbered, with the policy for malformed ones.
//!
//! CSV lines are taken apart one by one, so that a lost quote spoils its own line and no other, and so that line numbers
//! hold with blank lines and any line ends. Only lists of items may have line ends inside of quotes.

use std::borrow::Cow;
use std::io::{BufRead, Read};
use std::path::Path;
use std::result::Result as Outcome;

use super::number::quoted;
use crate::{Error, Result};

/// Room for a user with ten million events; a file without line ends must not fill the memory.
pub(super) const LONGEST_LINE: usize = 256 << 20;

/// A file being read.
pub(super) struct Lines<'a> {
    reader: &'a mut dyn BufRead,
    path: &'a Path,
    number: u64,
    buffer: Vec<u8>,
    longest: usize,
}

/// How many rows were understood and how many were not.
#[derive(Default)]
pub(super) struct Tally {
    pub good: u64,
    pub bad: u64,
    /// Why the first bad one was, with file and line.
    pub first_bad: Option<String>,
}

impl<'a> Lines<'a> {
    pub fn new(reader: &'a mut dyn BufRead, path: &'a Path) -> Lines<'a> {
        Lines { reader, path, number: 0, buffer: Vec::new(), longest: LONGEST_LINE }
    }

    /// Number of the current line, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// An error at the current line.
    pub fn error(&self, what: impl Into<String>) -> Error {
        Error::Dataset { path: self.path.to_path_buf(), line: self.number, what: what.into() }
    }

    /// The first line that is not blank, as UTF-8 text; `expected` says what an empty file lacks.
    pub fn header(&mut self, expected: &str) -> Result<String> {
        if !self.advance()? {
            return Err(self.error(format!("empty file: expected {expected}")));
        }
        self.text().map(str::to_owned).map_err(|what| self.error(format!("{what}: expected {expected}")))
    }

    /// Gives the next line that is not blank to `row`; false at the end of the file. What `row` complains of becomes an
    /// error at this line, or is counted if `skip_bad`.
    pub fn row(
        &mut self,
        skip_bad: bool,
        tally: &mut Tally,
        mut row: impl FnMut(&str) -> Outcome<(), String>,
    ) -> Result<bool> {
        if !self.advance()? {
            return Ok(false);
        }
        match self.text().and_then(&mut row) {
            Ok(()) => tally.good += 1,
            Err(what) if skip_bad => {
                tally.bad += 1;
                tally.first_bad.get_or_insert_with(|| self.error(what).to_string());
            }
            Err(what) => return Err(self.error(what)),
        }
        Ok(true)
    }

    /// Goes to the next line that is not blank; false at the end of the file.
    pub fn advance(&mut self) -> Result<bool> {
        loop {
            self.buffer.clear();
            let mut limited = (&mut *self.reader).take(self.longest as u64 + 1);
            let read = limited.read_until(b'\n', &mut self.buffer).map_err(Error::io("read", self.path))?;
            if read == 0 {
                return Ok(false);
            }
            self.number += 1;
            if read > self.longest {
                return Err(self.error(format!("a line of more than {} bytes: expected a text file", self.longest)));
            }
            if self.number == 1 {
                self.first_line()?;
            }
            if !self.bytes().trim_ascii().is_empty() {
                return Ok(true);
            }
        }
    }

    /// Takes off a byte order mark, and tells files that are no text.
    fn first_line(&mut self) -> Result<()> {
        match self.buffer[..] {
            [0xef, 0xbb, 0xbf, ..] => drop(self.buffer.drain(..3)),
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return Err(self.error("UTF-16 text: save it as UTF-8")),
            [b'P', b'K', 3, 4, ..] => return Err(self.error("a zip archive: give the text file that is in it")),
            _ => {}
        }
        Ok(())
    }

    /// The current line without its end.
    pub fn bytes(&self) -> &[u8] {
        let line = self.buffer.strip_suffix(b"\n").unwrap_or(&self.buffer);
        line.strip_suffix(b"\r").unwrap_or(line)
    }

    fn text(&self) -> Outcome<&str, String> {
        std::str::from_utf8(self.bytes()).map_err(|_| "not UTF-8 text".to_owned())
    }
}

/// What is wrong with a line that ends inside of quotes.
pub(super) const OPEN_QUOTE: &str = "a quote is missing: expected them in pairs";

/// The fields of one line of a CSV file. (A csv reader per line costs more than the numbers in it.)
pub(super) fn csv_fields(line: &str) -> Outcome<Vec<Cow<'_, str>>, String> {
    quoted_fields(line, ',')
}

/// The fields of one line between separators; those that begin with a quote may hold separators.
pub(super) fn quoted_fields(line: &str, separator: char) -> Outcome<Vec<Cow<'_, str>>, String> {
    let (mut fields, mut rest) = (Vec::new(), line);
    loop {
        let after = if let Some(inside) = rest.strip_prefix('"') {
            let (field, after) = split_quoted(inside)?;
            fields.push(field);
            after
        } else {
            let (field, after) = rest.split_at(rest.find(separator).unwrap_or(rest.len()));
            fields.push(field.into());
            after
        };
        rest = match after.strip_prefix(separator) {
            Some(rest) => rest,
            None if after.is_empty() => return Ok(fields),
            None => {
                return Err(format!("expected {separator:?} after the closing quote, found {}", quoted(after)));
            }
        };
    }
}

/// The text up to the closing quote, in which two quotes stand for one, and what follows it.
fn split_quoted(text: &str) -> Outcome<(Cow<'_, str>, &str), String> {
    let mut end = 0;
    loop {
        end += text[end..].find('"').ok_or(OPEN_QUOTE)?;
        if !text[end + 1..].starts_with('"') {
            let field = &text[..end];
            let field = if field.contains('"') { field.replace("\"\"", "\"").into() } else { field.into() };
            return Ok((field, &text[end + 1..]));
        }
        end += 2;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quotes_and_commas() {
        assert_eq!(csv_fields("a,\"b,c\",,\"\"").unwrap(), ["a", "b,c", "", ""]);
        assert_eq!(csv_fields("\"say \"\"hi\"\"\",5\" disk").unwrap(), ["say \"hi\"", "5\" disk"]);
        assert_eq!(csv_fields("").unwrap(), [""]);
        assert_eq!(csv_fields("\"a").unwrap_err(), "a quote is missing: expected them in pairs");
        assert_eq!(csv_fields("\"a\"\"").unwrap_err(), "a quote is missing: expected them in pairs");
        assert_eq!(csv_fields("\"a\"b,c").unwrap_err(), "expected ',' after the closing quote, found `b,c`");
    }

    #[test]
    fn a_line_may_be_as_long_as_it_may_be() {
        let read = |text: &str| {
            let mut reader = text.as_bytes();
            let mut lines = Lines { longest: 4, ..Lines::new(&mut reader, Path::new("t.csv")) };
            let first = lines.advance().map_err(|error| error.to_string());
            first.map(|_| String::from_utf8(lines.bytes().to_vec()).unwrap())
        };
        assert_eq!((read("abc\nd"), read("abcd")), (Ok("abc".to_string()), Ok("abcd".to_string())));
        let error = "t.csv:1: a line of more than 4 bytes: expected a text file";
        assert_eq!((read("abcde").unwrap_err().as_str(), read("abcd\n").unwrap_err().as_str()), (error, error));
    }

    proptest! {
        #[test]
        fn the_csv_crate_agrees(fields in prop::collection::vec("[a\",é ]{0,5}", 1..6)) {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(&fields).unwrap();
            let line = String::from_utf8(writer.into_inner().unwrap()).unwrap();
            prop_assert_eq!(csv_fields(line.trim_end_matches('\n')).unwrap(), fields);
        }
    }
}
