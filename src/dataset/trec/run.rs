//! Ranked results.

use std::io::{BufRead, Write};
use std::path::Path;

use super::{ByQuery, check_trec_name, insert, read, wrong_fields};
use crate::dataset::number::quoted;
use crate::error::Parameter;
use crate::{Error, Result, atomic, input};

const FIELDS: &str = "6 fields between blanks: query, Q0, document, rank, score, name of the run";

/// The last field of each line of a run, where nobody has chosen another one.
pub const TREC_RUN_NAME: &str = "rails-wgpu";

/// What a search has found for some queries, with scores: a TREC run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrecRun {
    queries: ByQuery<f32>,
}

impl TrecRun {
    /// No results yet.
    pub fn new() -> TrecRun {
        TrecRun::default()
    }

    /// Adds a document that was found for a query.
    ///
    /// # Errors
    /// If the query has the document already, the score is not finite, or a name is empty, has blanks or begins with `#`.
    pub fn add(&mut self, query: &str, document: &str, score: f32) -> Result<()> {
        check_trec_name("query", query)?;
        check_trec_name("document", document)?;
        if !score.is_finite() {
            return Err(Error::argument(Parameter::TrecRun, "finite scores", score));
        }
        insert(&mut self.queries, "scores", query, document, score)
            .map_err(|what| Error::argument(Parameter::TrecRun, "each document once a query", what))
    }

    /// Reads lines of six fields between blanks: query, a field that is passed over, document, rank, score, name of the run. As
    /// in trec_eval the scores say the order, not the ranks, which are passed over, and scores are 32-bit floats. Blank lines, those
    /// that begin with `#`, and further fields are passed over. The file may be compressed with gzip.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; [`Error::Dataset`] with the line if it has another form, or a query has a
    /// document twice.
    pub fn read(path: &Path) -> Result<TrecRun> {
        TrecRun::parse(&mut input::text(path)?, path)
    }

    /// Reads the same from memory or a stream; `path` is only named in errors.
    ///
    /// # Errors
    /// As [`TrecRun::read`].
    pub fn parse(reader: &mut dyn BufRead, path: &Path) -> Result<TrecRun> {
        let mut run = TrecRun::new();
        read(reader, path, FIELDS, |fields| {
            let [query, _, document, _, score, _, ..] = fields[..] else { return Err(wrong_fields(FIELDS, fields)) };
            // By way of 64 bits, as programs in C do it.
            let number = score.parse::<f64>().ok().map(|score| score as f32).filter(|score| score.is_finite());
            let number = number.ok_or_else(|| format!("expected a score, a finite number, found {}", quoted(score)))?;
            insert(&mut run.queries, "scores", query, document, number)
        })?;
        Ok(run)
    }

    /// Writes what [`TrecRun::read`] reads, each query in the order of [`TrecRun::ranking`], through a temporary file beside
    /// `path`. `name`: that of the run, in each line.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written; [`Error::Argument`] if the name is empty, has blanks or begins with `#`.
    pub fn write(&self, path: &Path, name: &str) -> Result<()> {
        check_trec_name("run", name)?;
        atomic::write(path, |file| {
            for query in self.queries.keys() {
                for (rank, (document, score)) in self.ranking(query).into_iter().enumerate() {
                    writeln!(file, "{query} Q0 {document} {} {score} {name}", rank + 1)?;
                }
            }
            Ok(())
        })
    }

    /// The queries with results, in alphabetical order.
    pub fn queries(&self) -> impl Iterator<Item = &str> {
        self.queries.keys().map(String::as_str)
    }

    /// The documents of a query with their scores, best first; of the same score the alphabetically last one first, as in
    /// trec_eval. None if the query has no results.
    pub fn ranking(&self, query: &str) -> Vec<(&str, f32)> {
        let scores = self.queries.get(query).into_iter().flatten();
        let mut ranking: Vec<(&str, f32)> = scores.map(|(document, &score)| (document.as_str(), score)).collect();
        // Positive and negative zero tie.
        ranking.sort_unstable_by(|a, b| (b.1 + 0.0).total_cmp(&(a.1 + 0.0)).then_with(|| b.0.cmp(a.0)));
        ranking
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::super::Qrels;
    use super::*;

    fn run(text: &str) -> Result<TrecRun> {
        TrecRun::parse(&mut text.as_bytes(), Path::new("run.txt"))
    }

    #[test]
    fn the_order_is_that_of_scores_then_of_names_from_the_last_one() {
        let run = run("# a comment\n1 Q0 a 9 1 x\n1 Q0 ab 8 1.000000001 x more\n\n1\tQ0\tc\t7\t-0\tx\r\n1 Q0 d 1 0 x")
            .unwrap();
        let documents: Vec<&str> = run.ranking("1").into_iter().map(|(document, _)| document).collect();
        assert_eq!(documents, ["ab", "a", "d", "c"]);
        assert!(run.ranking("2").is_empty());
    }

    #[test]
    fn files_come_back_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let (mut run, mut qrels) = (TrecRun::new(), Qrels::new());
        for (query, document, score) in [("q2", "é", 0.1), ("q1", "a", -3.5e-38), ("q1", "b", 1.0 / 3.0)] {
            run.add(query, document, score).unwrap();
            qrels.add(query, document, score as i32 - 1).unwrap();
        }
        run.write(&path, "mine").unwrap();
        assert_eq!(TrecRun::read(&path).unwrap(), run);
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("q1 Q0 b 1 0.33333334 mine\nq1 Q0 a 2 "));
        qrels.write(&path).unwrap();
        assert_eq!(Qrels::read(&path).unwrap(), qrels);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "q1 0 a -1\nq1 0 b -1\nq2 0 é -1\n");
    }

    #[test]
    fn what_is_no_run_and_no_judgment_is_said_with_its_line() {
        for (text, words) in [
            ("", "run.txt: no lines: expected 6 fields"),
            ("# nothing\n", "no lines"),
            ("1 Q0 a 1 2 x\n1 Q0 a 1\n", "run.txt:2: expected 6 fields between blanks: query, Q0, document"),
            ("1 Q0 a 1 two x\n", "run.txt:1: expected a score, a finite number, found `two`"),
            ("1 Q0 a 1 nan x\n", "found `nan`"),
            ("1 Q0 a 1 1e39 x\n", "found `1e39`"),
            ("1 Q0 a 1 2 x\n1 Q0 b 2 1 x\n1 Q0 a 3 0 x\n", "run.txt:3: document `a` of query `1` has two scores"),
        ] {
            let error = run(text).unwrap_err().to_string();
            assert!(error.contains(words), "{words}: {error}");
        }
        for (text, words) in [
            ("\n", "no lines: expected 4 fields"),
            (
                "1 0 a 1\n1 0 b\n",
                "qrels:2: expected 4 fields between blanks: query, 0, document, grade, found 3 fields: `1 0 b`",
            ),
            ("query-id corpus-id score\n", "found 3 fields"),
            ("1 0 a 1.5\n", "qrels:1: expected a grade, a whole number, found `1.5`"),
            ("1 0 a 99999999999\n", "found `99999999999`"),
            ("1 0 a 1\n1 0 a 1\n", "qrels:2: document `a` of query `1` has two grades"),
        ] {
            let error = Qrels::parse(&mut text.as_bytes(), Path::new("qrels")).unwrap_err().to_string();
            assert!(error.contains(words), "{words}: {error}");
        }
        assert!(
            TrecRun::parse(&mut &b"1 Q0 \xff 1 1 x"[..], Path::new("r"))
                .unwrap_err()
                .to_string()
                .contains("r:1: not UTF-8")
        );
    }

    #[test]
    fn what_a_file_could_not_hold_is_refused() {
        let (mut run, mut qrels) = (TrecRun::new(), Qrels::new());
        for name in ["", "a b", "#a", "a\n"] {
            assert!(run.add(name, "a", 1.0).is_err() && run.add("q", name, 1.0).is_err(), "{name:?}");
            assert!(qrels.add(name, "a", 1).is_err() && qrels.add("q", name, 1).is_err(), "{name:?}");
        }
        assert!(run.add("q", "a", f32::NAN).is_err());
        run.add("q", "a", 1.0).unwrap();
        qrels.add("q", "a", 1).unwrap();
        assert!(run.add("q", "a", 2.0).unwrap_err().to_string().contains("two scores"));
        assert!(qrels.add("q", "a", 2).unwrap_err().to_string().contains("two grades"));
        assert!(run.write(Path::new("unused"), "two words").is_err());
    }
}
