//! Attributes from a CSV or TSV file.

use std::io::{BufRead, Read};
use std::path::Path;

use super::{Attributes, Column, ColumnType, ColumnValues};
use crate::dataset::item_column;
use crate::{Error, Result, input};

/// What Parquet files begin with.
const PARQUET: &[u8] = b"PAR1";

/// How much of the first line is looked at before it is read.
const GLANCE: u64 = 1 << 16;

impl Attributes {
    /// Reads a CSV or TSV file with a header, which may be compressed with gzip: ids in a column `id`, `item_id`, `movie_id` or the
    /// like, every other column an attribute. The values of a column are INTEGER if all are whole numbers, REAL if all are numbers,
    /// else TEXT; empty ones are missing.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; [`Error::Dataset`] with the line if there is no column of ids or another one, a line
    /// has another number of fields, or it is another kind of file, such as Parquet.
    pub fn read(path: impl AsRef<Path>) -> Result<Attributes> {
        read(path.as_ref())
    }
}

fn read(path: &Path) -> Result<Attributes> {
    let mut reader = input::text(path)?;
    let mut header = Vec::new();
    let wrong = |line: u64, what: String| Error::Dataset { path: path.to_path_buf(), line, what };
    (&mut reader).take(GLANCE).read_until(b'\n', &mut header).map_err(Error::io("read", path))?;
    if header.starts_with(PARQUET) || path.extension().is_some_and(|extension| extension == "parquet") {
        let what = "a Parquet file: attributes are read from CSV or TSV (in Python: \
                    `pandas.read_parquet(FILE).to_csv(\"items.csv\", index=False)`)";
        return Err(wrong(0, what.to_string()));
    }
    let tabs = header.iter().filter(|&&byte| byte == b'\t').count();
    let separator = if tabs > 0 && !header.contains(&b',') { b'\t' } else { b',' };
    let mut lines = csv::ReaderBuilder::new().delimiter(separator).from_reader(header.as_slice().chain(reader));
    let failed = |error: csv::Error| csv_error(path, error);
    let names: Vec<String> = lines.headers().map_err(failed)?.iter().map(|name| name.trim().to_string()).collect();
    let id = names.iter().position(|name| name.eq_ignore_ascii_case("id")).or_else(|| item_column(&names));
    let Some(id) = id else {
        let names = if names.is_empty() { "an empty file".to_string() } else { names.join(", ") };
        return Err(wrong(1, format!("expected a header with a column `id` or `item_id`, found {names}")));
    };
    // Those of recbole tell their types: `year:float`.
    let plain = |name: &String| name.split(':').next().unwrap_or_default().to_string();
    let names = if names[id].contains(':') { names.iter().map(plain).collect() } else { names };
    if names.len() == 1 {
        return Err(wrong(1, "expected a column of attributes beside the ids, found none".to_string()));
    }

    let mut texts: Vec<Vec<Option<String>>> = vec![Vec::new(); names.len()];
    let mut record = csv::StringRecord::new();
    while lines.read_record(&mut record).map_err(failed)? {
        for (texts, field) in texts.iter_mut().zip(&record) {
            let field = field.trim();
            texts.push((!field.is_empty()).then(|| field.to_string()));
        }
        if record.get(id).is_none_or(|id| id.trim().is_empty()) {
            let line = record.position().map_or(0, csv::Position::line);
            return Err(wrong(line, "expected an id, found nothing".to_string()));
        }
    }
    let ids: Vec<String> = std::mem::take(&mut texts[id]).into_iter().flatten().collect();
    let mut attributes = match ids.iter().map(|id| number(id)).collect::<Option<Vec<u64>>>() {
        Some(numbers) => Attributes::new(numbers),
        None => Attributes::of_strings(ids),
    };
    for (column, (name, texts)) in names.iter().zip(texts).enumerate() {
        if column != id {
            let column = Column::new(name, type_of(&texts)).map_err(|error| wrong(1, error.to_string()))?;
            let added = attributes.with_typed_column(column, ColumnValues::Texts(texts));
            attributes = added.map_err(|error| wrong(0, error.to_string()))?;
        }
    }
    Ok(attributes)
}

/// The id that a text is, if it is one that is written so.
fn number(text: &str) -> Option<u64> {
    text.parse::<u64>().ok().filter(|number| number.to_string() == text)
}

/// What all values of a column are.
fn type_of(texts: &[Option<String>]) -> ColumnType {
    let all = |fits: fn(&str) -> bool| texts.iter().flatten().all(|text| fits(text));
    if texts.iter().all(Option::is_none) {
        ColumnType::Text
    } else if all(|text| text.parse::<i64>().is_ok()) {
        ColumnType::Integer
    } else if all(|text| text.parse::<f64>().is_ok_and(f64::is_finite)) {
        ColumnType::Real
    } else {
        ColumnType::Text
    }
}

fn csv_error(path: &Path, error: csv::Error) -> Error {
    let line = error.position().map_or(0, csv::Position::line);
    let what = match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("expected {expected_len} fields as in the header, found {len}")
        }
        csv::ErrorKind::Utf8 { .. } => "not UTF-8 text".to_string(),
        _ => match error.into_kind() {
            csv::ErrorKind::Io(source) => return Error::io("read", path)(source),
            other => format!("{other:?}"),
        },
    };
    Error::Dataset { path: path.to_path_buf(), line, what }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::super::{ItemKeys, Value};
    use super::*;

    fn read_text(name: &str, text: &[u8]) -> Result<Attributes> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        read(&path)
    }

    #[test]
    fn types_are_those_of_all_values() {
        let text = "\u{feff}genre,movie_id,year,score,empty,mixed\nComedy,7,1994,4.5,,1\n\"a, b\",9,,3,,x\n";
        let attributes = read_text("a.csv", text.as_bytes()).unwrap();
        assert!(matches!(attributes.keys(), ItemKeys::Numbers(ids) if *ids == [7, 9]));
        let found = Column::list(attributes.columns());
        assert_eq!(found, "genre TEXT, year INTEGER, score REAL, empty TEXT, mixed TEXT");
        let value = |column: usize, row| attributes.value(column, row, attributes.columns()[column].kind);
        assert_eq!((value(0, 1), value(1, 0), value(1, 1)), ("a, b".into(), 1994.into(), Value::Null));
        assert_eq!((value(2, 1), value(3, 0), value(4, 0)), (3.0.into(), Value::Null, "1".into()));
        let strings = read_text("a.tsv", b"id\tx y\ntt1\t3\n07\t4\n").unwrap();
        assert!(matches!(strings.keys(), ItemKeys::Strings(ids) if *ids == ["tt1", "07"]));
        assert_eq!(Column::list(strings.columns()), "x y INTEGER");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let cases: [(&str, &[u8], &str); 8] = [
            ("a.csv", b"", "column `id` or `item_id`, found an empty file"),
            (
                "a.csv",
                b"title,year\nx,3\n",
                "a.csv:1: expected a header with a column `id` or `item_id`, found title, year",
            ),
            ("a.csv", b"id\n1\n", "a column of attributes"),
            ("a.csv", b"id,year\n1,2\n3\n", "a.csv:3: expected 2 fields as in the header, found 1"),
            ("a.csv", b"id,year\n1,2\n,3\n", "a.csv:3: expected an id, found nothing"),
            ("a.csv", b"id,year\n1,\xff\n", "not UTF-8 text"),
            ("a.csv", b"id,rowid\n1,2\n", "expected names"),
            ("a.parquet", b"PAR1xxxx", "a Parquet file: attributes are read from CSV or TSV"),
        ];
        for (name, text, word) in cases {
            let error = read_text(name, text).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
