//! The files of TREC: judgments of relevance (`qrels`) and ranked results (runs), as trec_eval reads them.

mod qrels;
mod run;

pub use qrels::Qrels;
pub use run::{TREC_RUN_NAME, TrecRun};

use std::collections::{BTreeMap, HashMap};
use std::io::BufRead;
use std::path::Path;
use std::result::Result as Outcome;

use super::lines::Lines;
use super::number::quoted;
use crate::error::Parameter;
use crate::{Error, Result};

/// Gives the fields of each line, between blanks, to `row`; lines that begin with `#` are comments.
fn read(
    reader: &mut dyn BufRead,
    path: &Path,
    expected: &str,
    mut row: impl FnMut(&[&str]) -> Outcome<(), String>,
) -> Result<()> {
    let (mut lines, mut rows) = (Lines::new(reader, path), 0);
    while lines.advance()? {
        let text = std::str::from_utf8(lines.bytes()).map_err(|_| lines.error("not UTF-8 text"))?;
        if text.starts_with('#') {
            continue;
        }
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        row(&fields).map_err(|what| lines.error(what))?;
        rows += 1;
    }
    match rows {
        0 => Err(lines.error(format!("no lines: expected {expected}"))),
        _ => Ok(()),
    }
}

/// What is wrong with a line of so many fields.
fn wrong_fields(expected: &str, fields: &[&str]) -> String {
    format!("expected {expected}, found {} fields: {}", fields.len(), quoted(&fields.join(" ")))
}

/// Fails if `name`, of a `what` (a query, a document or a run), would not be one field of a line of TREC's files.
///
/// # Errors
/// [`Error::Argument`] if it is empty, has blanks or begins with `#`.
pub fn check_trec_name(what: &str, name: &str) -> Result<()> {
    match name.is_empty() || name.starts_with('#') || name.contains(|c: char| c.is_ascii_whitespace()) {
        false => Ok(()),
        true => {
            let expected = "a name without blanks that does not begin with `#`";
            Err(Error::argument(Parameter::TrecName, format!("{expected}, for a {what}"), quoted(name)))
        }
    }
}

/// Values of documents by query, then document.
type ByQuery<T> = BTreeMap<String, HashMap<String, T>>;

/// Adds a value, one of the `kind`s, of a document that has none yet for the query.
fn insert<T>(values: &mut ByQuery<T>, kind: &str, query: &str, document: &str, value: T) -> Outcome<(), String> {
    match values.entry(query.to_string()).or_default().insert(document.to_string(), value) {
        None => Ok(()),
        Some(_) => Err(format!(
            "document {} of query {} has two {kind}: expected each document once a query",
            quoted(document),
            quoted(query)
        )),
    }
}
