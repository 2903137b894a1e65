//! Judgments of relevance.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::path::Path;

use super::{ByQuery, check_trec_name, insert, read, wrong_fields};
use crate::dataset::number::quoted;
use crate::error::Parameter;
use crate::{Error, Result, atomic, input};

const FIELDS: &str = "4 fields between blanks: query, 0, document, grade";

/// How relevant documents are to queries, as people have judged them: TREC's `qrels`. A grade of 0 is not relevant, greater
/// ones are relevant; a negative one stands for a document that was not judged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Qrels {
    queries: ByQuery<i32>,
}

impl Qrels {
    /// No judgments yet.
    pub fn new() -> Qrels {
        Qrels::default()
    }

    /// Adds the grade of a document for a query.
    ///
    /// # Errors
    /// If the document has a grade for the query already, or a name is empty, has blanks or begins with `#`.
    pub fn add(&mut self, query: &str, document: &str, grade: i32) -> Result<()> {
        check_trec_name("query", query)?;
        check_trec_name("document", document)?;
        insert(&mut self.queries, "grades", query, document, grade)
            .map_err(|what| Error::argument(Parameter::Qrels, "each document once a query", what))
    }

    /// Reads lines of four fields between blanks: query, a field that is passed over, document, and grade, a whole number. Blank
    /// lines and those that begin with `#` are passed over. The file may be compressed with gzip.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; [`Error::Dataset`] with the line if it has another form, or a document has
    /// two grades for a query.
    pub fn read(path: &Path) -> Result<Qrels> {
        Qrels::parse(&mut input::text(path)?, path)
    }

    /// Reads the same from memory or a stream; `path` is only named in errors.
    ///
    /// # Errors
    /// As [`Qrels::read`].
    pub fn parse(reader: &mut dyn BufRead, path: &Path) -> Result<Qrels> {
        let mut qrels = Qrels::new();
        read(reader, path, FIELDS, |fields| {
            let [query, _, document, grade] = fields[..] else { return Err(wrong_fields(FIELDS, fields)) };
            let grade =
                grade.parse().map_err(|_| format!("expected a grade, a whole number, found {}", quoted(grade)))?;
            insert(&mut qrels.queries, "grades", query, document, grade)
        })?;
        Ok(qrels)
    }

    /// Writes what [`Qrels::read`] reads, by query, then document, through a temporary file beside `path`.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        atomic::write(path, |file| {
            for (query, grades) in &self.queries {
                let sorted: BTreeMap<&String, &i32> = grades.iter().collect();
                for (document, grade) in sorted {
                    writeln!(file, "{query} 0 {document} {grade}")?;
                }
            }
            Ok(())
        })
    }

    /// The judged queries, in alphabetical order.
    pub fn queries(&self) -> impl Iterator<Item = &str> {
        self.queries.keys().map(String::as_str)
    }

    /// The judged documents of a query with their grades, in no order; none if the query was not judged.
    pub fn grades(&self, query: &str) -> Option<impl Iterator<Item = (&str, i32)>> {
        let grades = self.queries.get(query)?;
        Some(grades.iter().map(|(document, &grade)| (document.as_str(), grade)))
    }

    /// The grade of a document for a query, if it has one.
    pub fn grade(&self, query: &str, document: &str) -> Option<i32> {
        self.queries.get(query)?.get(document).copied()
    }
}
